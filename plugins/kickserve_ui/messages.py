"""The messages of the pages in English and French, and numbers and dates in the manner of each language."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

Language = Literal["en", "fr"]
LANGUAGES: Final[tuple[Language, ...]] = get_args(Language)

_THIN: Final = "\N{NARROW NO-BREAK SPACE}"
_MINUS: Final = "\N{MINUS SIGN}"
# The lowest probability that each word is for.
_WORDS: Final = {
    "word_sure": 0.9,
    "word_likely": 0.7,
    "word_leaning": 0.55,
    "word_even": 0.45,
    "word_doubtful": 0.25,
    "word_unlikely": 0.1,
    "word_long_shot": 0.0,
}
_WARNING: Final = re.compile(r"(\w+) (beyond|below) ([\d.]+)\s*(.*)")
_QUALITY: Final = re.compile(r"\s*q=([01](?:\.\d+)?)\s*")

TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    # The frame.
    "nav": ("Pages", "Pages"),
    "nav_pitch": ("Pitch", "Terrain"),
    "nav_history": ("History", "Historique"),
    "nav_model": ("Model & quality", "Modèle et qualité"),
    "nav_api": ("API", "API"),
    "skip": ("Skip to the content", "Aller au contenu"),
    "language": ("Français", "English"),
    "theme": ("Light or dark", "Clair ou sombre"),
    "sign_in": ("Sign in", "Se connecter"),
    "sign_out": ("Sign out", "Se déconnecter"),
    "sign_in_text": (
        "This page shows and changes what is kept. It needs the key of this service, the one that clients of the"
        " API send.",
        "Cette page montre et modifie ce qui est conservé. Elle demande la clé de ce service, celle que les"
        " clients de l’API envoient.",
    ),
    "key": ("Key", "Clé"),
    "wrong_key": ("This is not the key of this service.", "Ce n’est pas la clé de ce service."),
    "wrong_keys": (
        "Too many wrong keys came from your address: wait a minute, and try again.",
        "Trop de clés fausses sont venues de votre adresse : attendez une minute, puis réessayez.",
    ),
    "weak_key": (
        "Your key may not look at what is kept: it needs the scope “read”.",
        "Votre clé ne permet pas de voir ce qui est conservé : il lui faut la portée « read ».",
    ),
    "store_away": (
        "The store can’t be reached just now; predictions are kept in the journal until it is back.",
        "La base est injoignable pour l’instant ; les prédictions restent dans le journal jusqu’à son retour.",
    ),
    "workers_title": ("The page needs a single worker", "La page demande un seul processus"),
    "workers_text": (
        "This service runs {workers} workers, and what a browser asks next could reach another of them. The API"
        " works as always. For the page, run a second service beside this one, on the same database:"
        " kickserve serve --workers 1 --port 7861, with a KICKSERVE_JOURNAL_DIR of its own.",
        "Ce service tourne avec {workers} processus, et la requête suivante d’un navigateur pourrait en atteindre"
        " un autre. L’API fonctionne comme toujours. Pour la page, lancez un second service à côté, sur la même"
        " base : kickserve serve --workers 1 --port 7861, avec son propre KICKSERVE_JOURNAL_DIR.",
    ),
    # The pitch.
    "title_pitch": ("Will it go over?", "Passera-t-il ?"),
    "pitch": (
        "Half a pitch, seen from behind the kicker, with the probability of success at every spot",
        "Un demi-terrain, vu de derrière le buteur, avec la probabilité de réussite en tout point",
    ),
    "ball": ("Ball: move it with the arrow keys", "Ballon : déplacez-le avec les flèches"),
    "halfway": ("halfway", "médiane"),
    "hint": (
        "Click the pitch or drag the ball. A placed ball is kept in the history, and so is another value that rests"
        " for half a second; what you drag through is not.",
        "Cliquez sur le terrain ou glissez le ballon. Un ballon posé est conservé dans l’historique, de même qu’une"
        " valeur au repos une demi-seconde ; pas ce que vous traversez en glissant.",
    ),
    "probability": ("Probability of success", "Probabilité de réussite"),
    "word_sure": ("As good as over", "Quasiment acquis"),
    "word_likely": ("Likely", "Probable"),
    "word_leaning": ("Rather yes than no", "Plutôt oui que non"),
    "word_even": ("A toss-up", "À pile ou face"),
    "word_doubtful": ("Rather no than yes", "Plutôt non que oui"),
    "word_unlikely": ("Unlikely", "Improbable"),
    "word_long_shot": ("A long shot", "Un exploit"),
    "interval": ("95% interval: {low} to {high}", "Intervalle à 95 % : de {low} à {high}"),
    "no_interval": ("This model gives no interval.", "Ce modèle ne donne pas d’intervalle."),
    "outside": ("Outside what the model knows: {what}", "Hors de ce que le modèle connaît : {what}"),
    "off_pitch": ("This spot is off the pitch.", "Ce point est hors du terrain."),
    "faded": ("Pale: outside what the model knows", "Pâle : hors de ce que le modèle connaît"),
    "pays": ("Within the white line a kick at goal pays", "En deçà de la ligne blanche, tenter paie"),
    "kept": ("Kept in the history", "Conservé dans l’historique"),
    "not_kept_yet": ("Not kept: looked at only", "Non conservé : simple aperçu"),
    "not_kept_key": (
        "Not kept: sign in with the key, and what you ask is kept",
        "Non conservé : connectez-vous avec la clé pour conserver",
    ),
    "not_kept_error": ("Not kept: {why}", "Non conservé : {why}"),
    "failed": ("The model could not answer: {why}", "Le modèle n’a pas pu répondre : {why}"),
    "summary": ("{place}: {probability}, {word}", "{place} : {probability}, {word}"),
    "place": ("{distance} m, {angle}° {side}", "{distance} m, {angle}° à {side}"),
    "of_left": ("left", "gauche"),
    "of_right": ("right", "droite"),
    # What can be set.
    "kick": ("The kick", "Le coup de pied"),
    "conditions": ("Conditions", "Conditions"),
    "kind": ("Kind", "Type"),
    "kind_penalty": ("Penalty", "Pénalité"),
    "kind_conversion": ("Conversion", "Transformation"),
    "distance": ("Distance (m)", "Distance (m)"),
    "angle": ("Angle (°)", "Angle (°)"),
    "side": ("Side", "Côté"),
    "side_left": ("Left", "Gauche"),
    "side_right": ("Right", "Droite"),
    "wind": ("Wind", "Vent"),
    "wind_value": ("{value} km/h", "{value} km/h"),
    "rain": ("Chance of rain", "Risque de pluie"),
    "minute": ("Minute", "Minute"),
    "minute_value": ("{value}′", "{value}′"),
    "start": ("first minutes", "premières minutes"),
    "endgame": ("last minutes", "dernières minutes"),
    "foot": ("Kicking foot", "Pied"),
    "foot_left": ("Left", "Gauche"),
    "foot_right": ("Right", "Droit"),
    "venue": ("Playing", "Joue"),
    "venue_home": ("At home", "À domicile"),
    "venue_away": ("Away", "À l’extérieur"),
    "attempts": ("Kicked at goal before", "A déjà tenté"),
    "attempts_yes": ("Yes", "Oui"),
    "attempts_no": ("No", "Non"),
    "presets": ("Situations", "Situations"),
    "preset_front": ("22, in front", "22 m, face aux poteaux"),
    "preset_fifteen": ("22, on the 15 m line", "22 m, ligne des 15 m"),
    "preset_touchline": ("Conversion from touch", "Transformation du bord"),
    "preset_halfway": ("From halfway", "De la médiane"),
    "preset_calm": ("Calm and dry", "Calme et sec"),
    "preset_storm": ("Storm, 79th minute, away", "Tempête, 79′, à l’extérieur"),
    "copy": ("Copy link", "Copier le lien"),
    "copied": ("The link holds all that is set here.", "Le lien contient tout ce qui est réglé ici."),
    "bad_link": (
        "The link holds values that can’t be used ({names}): the usual ones stand in their place.",
        "Le lien contient des valeurs inutilisables ({names}) : les valeurs habituelles les remplacent.",
    ),
    "bad_value": ("{name} must be a number from {low} to {high}", "{name} : un nombre de {low} à {high}"),
    # Why, and whether to.
    "drivers": ("What drives this kick", "Ce qui joue sur ce coup"),
    "drivers_text": (
        "Against the average kick ({average}), on the log-odds: right helps, left hurts.",
        "Face au coup moyen ({average}), en log-cotes : à droite favorable, à gauche défavorable.",
    ),
    "no_drivers": (
        "This model does not say what its average kick is, so nothing can be compared with it.",
        "Ce modèle ne dit pas quel est son coup moyen : rien à comparer.",
    ),
    "decision": ("Go for the posts?", "Tenter le but ?"),
    "miss": ("A miss, worth (pts)", "Échec (pts)"),
    "corner": ("Corner, worth (pts)", "Pénaltouche (pts)"),
    "points_goal": ("Kick at goal", "Tir au but"),
    "points_corner": ("Kick to the corner", "Pénaltouche"),
    "advice_goal": ("The posts: {value} points more on average", "Le but : {value} point de plus en moyenne"),
    "advice_corner": (
        "The corner: {value} points more on average",
        "La touche : {value} point de plus en moyenne",
    ),
    "advice_even": ("Worth the same", "Équivalent"),
    "break_even": ("It pays from {value} on.", "Cela paie à partir de {value}."),
    "values_text": (
        "Published: a lineout within 22 m of the line is worth about 2.3 points, a missed kick about 1.3.",
        "Publié : une touche à moins de 22 m de la ligne vaut environ 2,3 points, un tir manqué environ 1,3.",
    ),
    "tee": ("How far back?", "De combien reculer ?"),
    "tee_text": (
        "On this line {best} m back is best: {probability}. The ball lies at {here} m.",
        "Sur cette ligne, {best} m est le mieux : {probability}. Le ballon est à {here} m.",
    ),
    "tee_label": ("best: {best} m", "mieux : {best} m"),
    "tee_take": ("Put the ball there", "Y poser le ballon"),
    "tee_worth": ("Expected: {value} of 2 points", "Espérance : {value} sur 2 points"),
    # Features and warnings.
    "feature_time_norm": ("Time in the match", "Temps de jeu"),
    "feature_distance": ("Distance", "Distance"),
    "feature_angle": ("Angle", "Angle"),
    "feature_wind_speed": ("Wind", "Vent"),
    "feature_precipitation_probability": ("Chance of rain", "Risque de pluie"),
    "feature_is_left_footed": ("Left foot", "Pied gauche"),
    "feature_game_away": ("Away", "À l’extérieur"),
    "feature_is_endgame": ("Last minutes", "Dernières minutes"),
    "feature_is_start": ("First minutes", "Premières minutes"),
    "feature_is_left_side": ("Left of the posts", "À gauche des poteaux"),
    "feature_has_previous_attempts": ("Kicked before", "A déjà tenté"),
    "feature_prediction": ("Predictions", "Prédictions"),
    "warning_beyond": ("{feature} beyond {limit}", "{feature} au-delà de {limit}"),
    "warning_below": ("{feature} below {limit}", "{feature} en deçà de {limit}"),
    # History.
    "title_history": ("What was predicted", "Ce qui a été prédit"),
    "from": ("From (UTC)", "Du (UTC)"),
    "to": ("Up to and with (UTC)", "Jusqu’au (UTC)"),
    "outcome": ("Outcome", "Résultat"),
    "any": ("All", "Tous"),
    "open": ("Not yet known", "Pas encore connu"),
    "scored": ("Scored", "Réussi"),
    "missed": ("Missed", "Manqué"),
    "when": ("When (UTC)", "Quand (UTC)"),
    "chance": ("Probability", "Probabilité"),
    "model": ("Model", "Modèle"),
    "actions": ("Actions", "Actions"),
    "delete": ("Delete", "Supprimer"),
    "delete_question": ("Delete this prediction for good?", "Supprimer définitivement cette prédiction ?"),
    "cancel": ("Cancel", "Annuler"),
    "gone": ("It was deleted elsewhere.", "Elle a été supprimée ailleurs."),
    "older": ("Older", "Plus anciennes"),
    "newest": ("Newest", "Les plus récentes"),
    "csv": ("Download CSV", "Télécharger en CSV"),
    "nothing": ("Nothing is kept that fits.", "Rien de conservé ne correspond."),
    "searched": (
        "{count} predictions were looked through; older ones may fit too.",
        "{count} prédictions ont été parcourues ; de plus anciennes peuvent aussi correspondre.",
    ),
    "show": ("Show on the pitch", "Voir sur le terrain"),
    # Model and quality.
    "title_model": ("The model, and how well it does", "Le modèle, et ce qu’il vaut"),
    "card": ("The model", "Le modèle"),
    "simulated": ("Simulated from published figures", "Simulé à partir de chiffres publiés"),
    "card_revision": ("Revision", "Révision"),
    "card_kind": ("Kind", "Type"),
    "card_source": ("From", "Origine"),
    "card_interval": ("The interval covers", "L’intervalle couvre"),
    "card_domain": ("It knows", "Il connaît"),
    "card_trained": ("Trained on", "Entraîné sur"),
    "card_metrics": ("Measured when made", "Mesuré à sa création"),
    "reliability": ("Reliability", "Fiabilité"),
    "reliability_text": (
        "Kicks whose outcome is known, in groups of like probability: how often they went over against how often"
        " the model said so. On the diagonal it is right.",
        "Coups dont le résultat est connu, groupés par probabilité : fréquence de réussite face à la prédiction."
        " Sur la diagonale, le modèle a raison.",
    ),
    "predicted": ("Predicted", "Prédit"),
    "happened": ("Went over", "Réussis"),
    "no_outcomes": (
        "No outcome is known yet: mark kicks as scored or missed in the history, or send them to the API.",
        "Aucun résultat connu : marquez les coups réussis ou manqués dans l’historique, ou envoyez-les à l’API.",
    ),
    "by_model": ("By model", "Par modèle"),
    "by_month": ("By month", "Par mois"),
    "group": ("Group", "Groupe"),
    "kicks": ("Kicks", "Coups"),
    "brier": ("Brier score", "Score de Brier"),
    "ece": ("ECE", "ECE"),
    "expected": ("Expected", "Attendus"),
    "actual": ("Actual", "Réels"),
    "all_kicks": ("All", "Tous"),
    "drift": ("Drift", "Dérive"),
    "no_drift": (
        "No drift is known: the drift plugin is not installed, or there are too few kicks yet.",
        "Pas de dérive connue : le module drift n’est pas installé, ou trop peu de coups.",
    ),
    "drift_yes": ("Drifted: {share} of the features", "Dérive : {share} des variables"),
    "drift_no": ("No drift: {share} of the features", "Pas de dérive : {share} des variables"),
    "drift_text": (
        "{kicks} kicks since {since}, looked at {at}",
        "{kicks} coups depuis le {since}, vus le {at}",
    ),
    "drift_report": ("Open the full report", "Ouvrir le rapport complet"),
    "psi": ("PSI", "PSI"),
    "mean_now": ("Mean now", "Moyenne actuelle"),
    "mean_then": ("Mean in training", "Moyenne d’entraînement"),
    "service": ("The service", "Le service"),
    "rate": ("Predictions a second", "Prédictions par seconde"),
    "total": ("Predictions since the start", "Prédictions depuis le démarrage"),
    "latency": ("Answer within (half / 99 of 100)", "Réponse en moins de (la moitié / 99 sur 100)"),
    "journal": ("Waiting in the journal", "En attente dans le journal"),
    "store": ("Store", "Base"),
    "memory": ("Memory", "Mémoire"),
    "ok": ("well", "en ordre"),
}
"""Texts by key: English, French."""


class Messages:
    """The messages of one language.

    Args:
        language: `en` or `fr`.
    """

    def __init__(self, language: Language) -> None:
        self.language: Language = language
        self._column = LANGUAGES.index(language)

    def __call__(self, key: str, **values: Any) -> str:
        """Return a text, with values filled in.

        Raises:
            KeyError: there is no such text.
        """
        text = TEXTS[key][self._column]
        return text.format(**values) if values else text

    def number(self, value: float, digits: int = 0, *, signed: bool = False) -> str:
        """Write a number with so many decimals."""
        text = f"{value:{'+' if signed else ''},.{digits}f}".replace("-", _MINUS)
        if self.language == "fr":
            text = text.replace(",", _THIN).replace(".", ",")
        return text

    def percent(self, fraction: float, digits: int = 1) -> str:
        """Write a fraction from 0 to 1 as a percentage."""
        space = _THIN if self.language == "fr" else ""
        return f"{self.number(100 * fraction, digits)}{space}%"

    def moment(self, at: datetime) -> str:
        """Write an instant, in UTC."""
        form = "%d/%m/%Y %H:%M:%S" if self.language == "fr" else "%d %b %Y %H:%M:%S"
        return at.astimezone(UTC).strftime(form)

    def likelihood(self, probability: float) -> str:
        """Put a probability in words."""
        return self(next(key for key, lowest in _WORDS.items() if probability >= lowest))

    def warning(self, text: str) -> str:
        """Translate a warning of the model; one in an unknown form stays as it is."""
        found = _WARNING.fullmatch(text)
        if found is None or f"feature_{found[1]}" not in TEXTS:
            return text
        name, side, value, unit = found.groups()
        decimals = len(value.partition(".")[2])
        limit = f"{self.number(float(value), decimals)} {unit}".strip()
        return self(f"warning_{side}", feature=self(f"feature_{name}"), limit=limit)


@cache
def messages_in(language: Language) -> Messages:
    """Return the messages of a language."""
    return Messages(language)


def language_of(chosen: str, accepted: str) -> Language:
    """Return the language to use.

    Args:
        chosen: by the visitor on the page; empty where nothing has been chosen.
        accepted: the header Accept-Language, which lists languages, most wanted first unless `q` differs.
    """
    weighed = [_weighed(each) for each in accepted.split(",")]
    for language in (chosen, *(name for _, name in sorted(weighed, key=lambda each: -each[0]))):
        if language in LANGUAGES:
            return language
    return "en"


def _weighed(part: str) -> tuple[float, str]:
    name, _, quality = part.partition(";")
    found = _QUALITY.fullmatch(quality)
    return float(found[1]) if found else 1.0, name.strip().partition("-")[0].lower()
