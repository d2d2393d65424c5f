"""The words of MiniFrench: nouns with their gender, adjectives with both forms, and plain phrases.

No noun here begins with an aspirated h, so a first vowel letter or h decides whether an article is elided.
"""

from __future__ import annotations

from typing import NamedTuple


class Noun(NamedTuple):
    """A singular noun and its gender."""

    word: str
    feminine: bool


class Adjective(NamedTuple):
    """An adjective that stands after its noun, in the masculine and the feminine singular."""

    masculine: str
    feminine: str


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _nouns(masculine: str = "", feminine: str = "") -> tuple[Noun, ...]:
    return tuple(Noun(w, False) for w in _list(masculine)) + tuple(Noun(w, True) for w in _list(feminine))


def _adjectives(text: str) -> tuple[Adjective, ...]:
    """`rouge` serves both genders; `vert/verte` names the feminine."""
    pairs = (item.partition("/") for item in _list(text))
    return tuple(Adjective(masculine, feminine or masculine) for masculine, _, feminine in pairs)


NOUNS: dict[str, tuple[Noun, ...]] = {
    "device": _nouns(
        "chauffage, volet, radiateur, ventilateur, téléviseur, four, aspirateur, portail, store, ordinateur, arrosage",
        "lumière, radio, porte, musique, fenêtre, lampe, alarme, cafetière, imprimante, caméra, machine à laver",
    ),
    "room": _nouns(
        "salon, bureau, jardin, garage, couloir, grenier, atelier, balcon",
        "cuisine, chambre, salle de bain, cave, terrasse, entrée, véranda, buanderie",
    ),
    "relative": _nouns(
        "frère, père, oncle, cousin, grand-père, voisin, ami, neveu, collègue",
        "sœur, mère, tante, cousine, grand-mère, voisine, amie, nièce, fille",
    ),
    "worker": _nouns(
        "boulanger, médecin, professeur, facteur, jardinier, pompier, musicien, peintre, vendeur, pilote, avocat",
        "directrice, infirmière, chanteuse, ingénieure, cuisinière, danseuse, étudiante, serveuse, actrice",
    ),
    "animal": _nouns(
        "chat, chien, cheval, lapin, oiseau, mouton, canard, poisson, renard, ours, loup, âne, écureuil",
        "vache, poule, chèvre, souris, tortue, abeille, grenouille, fourmi, girafe, araignée",
    ),
    "place": _nouns(
        "parc, marché, bois, champ, village, pont, lac, moulin, château, musée, hôpital, cinéma",
        "rivière, maison, ferme, forêt, plage, rue, école, place, montagne, gare, église, bibliothèque",
    ),
    "thing": _nouns(
        "livre, stylo, cahier, vélo, sac, manteau, chapeau, couteau, verre, tableau, parapluie, appareil",
        "voiture, clé, chaise, table, valise, bouteille, lettre, montre, chemise, assiette, guitare, échelle",
    ),
    "food": _nouns(
        "pain, fromage, riz, chocolat, café, thé, jus de pomme, poulet, gâteau, beurre, miel, ail",
        "salade, tomate, soupe, moutarde, confiture, tarte, omelette, orange, crème, viande, eau, glace",
    ),
    "lesson": _nouns("dessin, français, chant", "géographie, histoire, chimie, biologie, philosophie, algèbre"),
    "vehicle": _nouns("train, avion, bus, bateau, métro, tramway, taxi, autocar", "navette, barque"),
    "song": _nouns("jazz, rock, piano, violon, accordéon", "musique classique, chanson française, guitare, opérette"),
}

ADJECTIVES: dict[str, tuple[Adjective, ...]] = {
    "colour": _adjectives(
        "rouge, bleu/bleue, vert/verte, noir/noire, blanc/blanche, jaune, gris/grise, violet/violette"
    ),
    "quality": _adjectives(
        "neuf/neuve, ancien/ancienne, léger/légère, lourd/lourde, cassé/cassée, propre, étrange, magnifique, "
        "minuscule, fragile, précieux/précieuse, pointu/pointue, immense, moderne, élégant/élégante, solide"
    ),
    "mood": _adjectives(
        "content/contente, fatigué/fatiguée, malade, calme, curieux/curieuse, prudent/prudente, sérieux/sérieuse, "
        "joyeux/joyeuse, inquiet/inquiète, surpris/surprise, tranquille, courageux/courageuse"
    ),
}

PHRASES: dict[str, tuple[str, ...]] = {
    "switch": _list("allume, éteins, ouvre, ferme, arrête, démarre, règle, vérifie, active, programme, débranche"),
    "change": _list("monte, baisse, augmente, diminue, coupe"),
    "person": _list(
        "Marie, Paul, Julie, Lucas, Emma, Louis, Chloé, Hugo, Camille, Antoine, Léa, Thomas, Manon, Nicolas, Sarah, "
        "Pierre, Claire, Gabriel, Alice, Jules, Inès, Arthur, Zoé, Martin, Jeanne, Victor, Lucie, Simon, Hélène"
    ),
    "city": _list(
        "Paris, Lyon, Marseille, Bruxelles, Genève, Lille, Nantes, Bordeaux, Strasbourg, Toulouse, Namur, Lausanne, "
        "Grenoble, Rennes, Dijon, Nice, Montpellier, Liège, Québec, Orléans, Avignon"
    ),
    "handles": _list(
        "achète, vend, cherche, trouve, perd, répare, regarde, porte, prend, oublie, dessine, nettoie, choisit, garde, "
        "apporte, prête, emprunte, échange"
    ),
    "eats": _list("mange, prépare, goûte, commande, achète, partage, sert, refuse, adore, déteste"),
    "moves": _list(
        "dort, court, joue, saute, attend, arrive, disparaît, se cache, se repose, se promène, tombe, revient, avance"
    ),
    "does": _list(
        "travaille, habite, voyage, chante, marche, se promène, étudie, rencontre des amis, fait des courses"
    ),
    "where": _list("dans, devant, derrière, vers, sous"),
    "when": _list(
        "aujourd'hui, demain, ce soir, ce matin, chaque jour, souvent, parfois, maintenant, bientôt, toujours, "
        "tout de suite, après le dîner, avant la nuit, pendant les vacances, tous les lundis, en hiver, en été, "
        "au printemps, en automne, cet après-midi, la semaine prochaine"
    ),
    "weather": _list(
        "il pleut, il neige, il fait froid, il fait chaud, il fait beau, le ciel est gris, le soleil brille, "
        "il y a du vent, il y a de l'orage, il y a du brouillard, la nuit tombe, le temps est humide"
    ),
    "goods": _list(
        "pommes, poires, carottes, oranges, tomates, cerises, fraises, oignons, abricots, citrons, olives, noix, "
        "pommes de terre, haricots, œufs, champignons"
    ),
    "measure": _list("kilos, grammes, paquets, sacs, paniers"),
    "unit": _list("mètres, kilomètres, kilos, grammes, litres, euros, degrés, jours, mois, ans, étages, pas"),
    "unit_f": _list("minutes, secondes, semaines, pages, places, années, personnes, lettres, photos"),
    "because": _list("parce que, alors que, pendant que, quand"),
    "polite": _list("s'il te plaît, s'il vous plaît, merci"),
}
