"""What `tools/contract_table.py` is made of: the models, and the checks they are put to."""
