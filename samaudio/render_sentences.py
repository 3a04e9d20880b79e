"""Sentences for the synthetic voices of `samaudio.renders`, put together at random from word lists."""

from random import Random

# Parts of sentences: who, does what, to what, where or when. One of each makes a sentence.
SENTENCES = {
    "English": (
        (
            "my sister",
            "the old baker",
            "a tired driver",
            "our teacher",
            "the woman next door",
            "somebody",
            "the whole village",
            "a young doctor",
            "the captain",
            "his grandfather",
            "the last guest",
            "a stranger",
        ),
        (
            "remembers",
            "has forgotten",
            "is looking for",
            "never liked",
            "quietly repaired",
            "will bring",
            "talks about",
            "painted",
            "wanted to buy",
            "keeps losing",
            "found",
            "described",
        ),
        (
            "the green bicycle",
            "a jar of honey",
            "seven letters",
            "that strange noise",
            "the broken window",
            "an umbrella",
            "her favourite song",
            "the price of bread",
            "a map of the river",
            "the garden key",
            "two cups of coffee",
            "the story of the lighthouse",
        ),
        (
            "before breakfast",
            "at the railway station",
            "on a rainy Thursday",
            "near the harbour",
            "last winter",
            "behind the school",
            "without a word",
            "for almost an hour",
            "in the upstairs kitchen",
            "every summer",
            "when the music stopped",
            "as usual",
        ),
    ),
    "German": (
        (
            "meine Schwester",
            "der alte Bäcker",
            "unsere Lehrerin",
            "ein müder Fahrer",
            "der Nachbar",
            "jemand",
        ),
        ("sucht", "vergisst", "findet", "beschreibt", "repariert", "bringt"),
        ("das grüne Fahrrad", "ein Glas Honig", "sieben Briefe", "das kaputte Fenster", "den Schlüssel"),
        ("vor dem Frühstück", "am Bahnhof", "jeden Sommer", "hinter der Schule", "ohne ein Wort"),
    ),
    "French": (
        (
            "ma sœur",
            "le vieux boulanger",
            "notre professeur",
            "un chauffeur fatigué",
            "la voisine",
            "quelqu'un",
        ),
        ("cherche", "oublie", "trouve", "décrit", "répare", "apporte"),
        ("le vélo vert", "un pot de miel", "sept lettres", "la fenêtre cassée", "la clé du jardin"),
        ("avant le petit déjeuner", "à la gare", "chaque été", "derrière l'école", "sans un mot"),
    ),
    "Spanish": (
        (
            "mi hermana",
            "el viejo panadero",
            "nuestra maestra",
            "un conductor cansado",
            "la vecina",
            "alguien",
        ),
        ("busca", "olvida", "encuentra", "describe", "repara", "trae"),
        ("la bicicleta verde", "un tarro de miel", "siete cartas", "la ventana rota", "la llave del jardín"),
        ("antes del desayuno", "en la estación", "cada verano", "detrás de la escuela", "sin decir nada"),
    ),
    "Italian": (
        (
            "mia sorella",
            "il vecchio fornaio",
            "la nostra maestra",
            "un autista stanco",
            "la vicina",
            "qualcuno",
        ),
        ("cerca", "dimentica", "trova", "descrive", "ripara", "porta"),
        ("la bicicletta verde", "un vasetto di miele", "sette lettere", "la finestra rotta", "la chiave"),
        ("prima di colazione", "alla stazione", "ogni estate", "dietro la scuola", "senza una parola"),
    ),
    "Portuguese": (
        ("minha irmã", "o velho padeiro", "nossa professora", "um motorista cansado", "a vizinha", "alguém"),
        ("procura", "esquece", "encontra", "descreve", "conserta", "traz"),
        ("a bicicleta verde", "um pote de mel", "sete cartas", "a janela quebrada", "a chave do jardim"),
        ("antes do café", "na estação", "todo verão", "atrás da escola", "sem dizer nada"),
    ),
}


def sentences(rng: Random, language: str, words: int) -> str:
    """At least `words` words of sentences in a language of `SENTENCES`."""
    text: list[str] = []
    while sum(len(s.split()) for s in text) < words:
        sentence = " ".join(rng.choice(part) for part in SENTENCES[language])
        text.append(sentence[0].upper() + sentence[1:] + rng.choice(".....?!"))
    return " ".join(text)
