"""What a computation costs: time, memory, multiply-accumulates, energy. Nothing here knows a model.

Machines are shared and noisy, so that what is compared takes turns in one process (`time_in_turns`), with one thread
by the processor's time rather than the clock's. Memory is the growth of this process's own peak (`PeakMemory`), best
measured in a process of its own: libraries keep buffers, which the first to need them pays for.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.util
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MEGABYTE = 1e6


class Times(NamedTuple):
    """How long one computation took, each time that it ran.

    Example
    -------
    >>> times = Times([3.0, 1.0, 1.5])
    >>> times.best, times.median
    (1.0, 1.5)
    """

    seconds: list[float]

    @property
    def best(self) -> float:
        """Seconds of the least disturbed run."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Seconds of the run in the middle."""
        return statistics.median(self.seconds)


def time_in_turns(
    functions: Mapping[str, Callable[[], object]],
    rounds: int = 20,
    seconds: float = 5.0,
    least: int = 2,
    device: str = "cpu",
) -> dict[str, Times]:
    """Time functions that take turns, in reversed order every other round, so that drift of the machine hits all.

    Parameters
    ----------
    functions : dict of str to callable
        What to time.
    rounds : int
        How often each runs at most.
    seconds : float
        By the clock; no round begins later, but for the first ``least``.
    least : int
        How often each runs at least.
    device : str
        ``cpu`` or ``cuda``, whose queue is waited for. With one thread on the CPU, the time is the process's CPU time,
        so that other programs disturb little; otherwise the clock's.

    Returns
    -------
    dict of str to Times

    Example
    -------
    >>> times = time_in_turns({"sum": lambda: sum(range(1000)), "nothing": lambda: None}, rounds=5)
    >>> len(times["sum"].seconds), times["nothing"].best < times["sum"].median
    (5, True)
    """
    import torch

    clock = time.process_time if device == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    taken: dict[str, list[float]] = {name: [] for name in functions}
    began = time.perf_counter()
    for turn in range(rounds):
        if turn >= least and time.perf_counter() - began > seconds:
            break
        for name in list(functions)[:: -1 if turn % 2 else 1]:
            started = clock()
            functions[name]()
            _wait_for(device)
            taken[name].append(clock() - started)
    return {name: Times(values) for name, values in taken.items()}


class PeakMemory:
    """How far memory rose above what was in use before, while a block ran: ``mb`` (10⁶ bytes) afterwards.

    On the CPU it is this process's resident memory. Linux is asked to forget the peak so far, and inside the block its
    C library to give each tensor pages of its own and take them back at once: otherwise it keeps some of what is freed,
    more or less by chance. Elsewhere a peak below an earlier one is not seen, and 0 is given. On a GPU it is PyTorch's
    allocator. Time nothing inside the block.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``.

    Example
    -------
    >>> with PeakMemory() as memory:
    ...     block = bytearray(20_000_000)
    >>> memory.mb > 10
    True
    """

    mb = 0.0

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def __enter__(self) -> PeakMemory:
        gc.collect()
        _wait_for(self.device)
        if self.device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated() / MEGABYTE
        else:
            _own_pages(True)
            self._before = _forget_peak()
        return self

    def __exit__(self, *raised: object) -> None:
        _wait_for(self.device)
        self.mb = max(0.0, peak_mb(self.device) - self._before)
        if self.device == "cpu":
            _own_pages(False)


def peak_mb(device: str = "cpu") -> float:
    """Return the largest memory of this process so far (on the GPU: of PyTorch's allocator), in 10⁶ bytes."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / MEGABYTE
    # Not getrusage where it can be helped: Linux hands a parent's ru_maxrss down to the programs that it starts.
    status = _status()
    if "VmHWM" in status:
        return status["VmHWM"]
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEGABYTE


def _own_pages(wanted: bool) -> None:
    """Set from which size on glibc's malloc takes and returns pages, what it arrives at by itself if not wanted, and
    have it return those that are free."""
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # musl has none
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        library.mallopt(mmap_threshold, 2**16 if wanted else 2**25)
        library.mallopt(trim_threshold, 2**16 if wanted else 2**26)
        library.malloc_trim(0)


def _forget_peak() -> float:
    """Memory in use, in MB, from which a peak is measured."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return peak_mb()
    return _status()["VmRSS"]


def _status() -> dict[str, float]:
    """The sizes in /proc/self/status, in MB; empty where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(kilobytes) * 1024 / MEGABYTE for name, kilobytes, _ in fields}


def limit_memory(gigabytes: float) -> bool:
    """Make every later allocation of this process beyond a total fail; return whether the system can do so."""
    if sys.platform != "linux":
        return False
    import resource

    # Not RLIMIT_AS, which also counts libraries, files and address space that is only reserved.
    limit = int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    return True


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that there was too little memory, Python's, C++'s, PyTorch's or CUDA's.

    Example
    -------
    >>> is_out_of_memory(MemoryError()), is_out_of_memory(ValueError("no such option"))
    (True, False)
    """
    words = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error).lower() for word in words)


class Counted(NamedTuple):
    """Multiply-accumulates of a computation."""

    total: int
    by_hand: int
    """The part that PyTorch's counter does not see on a CPU, fused attention and Fourier transforms, from shapes."""


def counted_macs(function: Callable[[], object]) -> Counted:
    """Count the multiply-accumulates that a function does in products, convolutions, attention and transforms.

    Fused attention of Q queries to K keys is Q K (d + d_v) per head; a Fourier transform of n complex numbers is
    2.5 n log2 n, half its 5 n log2 n operations (Cooley & Tukey 1965), and half of that where one side is real.

    Example
    -------
    >>> import torch
    >>> x = torch.ones(2, 3, 8, 4)
    >>> counted_macs(lambda: x @ x.transpose(2, 3))
    Counted(total=1536, by_hand=0)
    >>> counted_macs(lambda: torch.nn.functional.scaled_dot_product_attention(x, x, x))
    Counted(total=3072, by_hand=3072)
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    aten = torch.ops.aten
    by_hand: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention_operations,
        aten._fft_c2c: _fourier_operations,
        aten._fft_r2c: functools.partial(_fourier_operations, real=True),
        aten._fft_c2r: functools.partial(_fourier_operations, real=True),
    }
    with FlopCounterMode(display=False, custom_mapping=by_hand) as counter, torch.no_grad():
        function()
    counts = counter.get_flop_counts().get("Global", {})
    return Counted(counter.get_total_flops() // 2, sum(counts.get(name, 0) for name in by_hand) // 2)


def _attention_operations(query: Any, key: Any, value: Any, *rest: Any, **options: Any) -> int:
    """Operations of attention, from shapes (..., T, d)."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _fourier_operations(
    x: Sequence[int], dims: Sequence[int], *rest: Any, out_shape: Any = None, real: bool = False, **options: Any
) -> int:
    """Operations of a Fourier transform along some dimensions of a shape."""
    # From complex to real, `x` holds one side of the spectrum: the output has the length.
    shape = out_shape if out_shape and math.prod(out_shape) > math.prod(x) else x
    operations = 5 * math.prod(shape) * math.log2(max(2, math.prod(shape[dim] for dim in dims)))
    return round(operations / 2 if real else operations)


class Energy:
    """Electric energy that was used while a block ran, where something is installed that can tell.

    On a GPU NVIDIA's NVML counts that GPU (package ``nvidia-ml-py``). On a CPU, CodeCarbon (package ``codecarbon``)
    reads or estimates the whole machine.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``.

    Attributes
    ----------
    joules : float or None
        None where nothing can tell.
    source : str
        Who told.

    Example
    -------
    >>> with Energy() as energy:
    ...     total = sum(range(1000))
    >>> energy.joules is None or energy.joules >= 0
    True
    """

    joules: float | None = None

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        package = "pynvml" if device == "cuda" else "codecarbon"
        self._there = importlib.util.find_spec(package) is not None
        self.source = {"pynvml": "NVML", "codecarbon": "CodeCarbon"}[package] if self._there else "not measured"

    def __enter__(self) -> Energy:
        if self._there and self.device == "cuda":
            self._before = _gpu_joules()
        elif self._there:
            from codecarbon import OfflineEmissionsTracker

            # The country is for CO2 alone, which is not read.
            self._tracker = OfflineEmissionsTracker(country_iso_code="FRA", save_to_file=False, log_level="critical")
            self._tracker.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._there and self.device == "cuda":
            _wait_for(self.device)
            self.joules = _gpu_joules() - self._before
        elif self._there:
            self._tracker.stop()
            # It logs its own errors instead of raising them, and then has no data.
            data = getattr(self._tracker, "final_emissions_data", None)
            self.joules = None if data is None else data.energy_consumed * 3.6e6


def _gpu_joules() -> float:
    import pynvml
    import torch

    pynvml.nvmlInit()
    # NVML numbers all GPUs of the machine, PyTorch those that it may see.
    handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
    return pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000


def _wait_for(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
