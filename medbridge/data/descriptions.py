"""Findings in plain words: synonyms, and what presence and absence look like to who never read a radiology report. [ours]"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """Synonyms of a label, and what its presence and absence look like in plain words."""

    synonyms: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    whole: bool = False  # a label that is itself a negation ("No Finding") does not go through the templates


# finding of medbridge.data.labels, lower case -> its description; other labels still get the templates
DESCRIPTIONS: dict[str, Description] = {
    "atelectasis": Description(
        ("collapsed lung tissue", "volume loss"),
        ("a bright band across a dark area", "a bright wedge at the bottom"), ("a dark area without bands",)),
    "cardiomegaly": Description(
        ("an enlarged heart",), ("a large bright blob in the centre",), ("a small bright blob in the centre",)),
    "effusion": Description(
        ("pleural effusion", "fluid in the pleural space"),
        ("a large bright area at the bottom with a curved edge",), ("a dark area at the bottom with a sharp edge",)),
    "infiltration": Description(
        ("an interstitial infiltrate",), ("a fine bright texture of many thin lines",), ("a smooth dark area",)),
    "mass": Description(("a lung mass", "a large lesion"), ("a large bright round blob",), ("a dark area without blobs",)),
    "nodule": Description(
        ("a pulmonary nodule", "a small lesion"), ("a small bright round spot",), ("a dark area without spots",)),
    "pneumonia": Description(
        ("lung consolidation", "an infection of the lung"), ("a blurry bright patch",), ("a clear dark area",)),
    "pneumothorax": Description(
        ("air in the pleural space", "a collapsed lung"),
        ("a thin bright line beside a smooth dark area",), ("a dark area with many fine lines",)),
    "bacterial pneumonia": Description(("lobar pneumonia",), ("one dense bright patch on one side",), ("two clear dark areas",)),
    "viral pneumonia": Description(
        ("interstitial pneumonia",), ("a fine blurry texture on both sides",), ("two clear dark areas",)),
    "covid-19": Description(("COVID-19 pneumonia",), ("blurry bright patches at both sides",), ("two clear dark areas",)),
    "consolidation": Description(("airspace consolidation",), ("a dense bright patch",), ("a clear dark area",)),
    "edema": Description(
        ("pulmonary edema", "fluid in the lungs"), ("a blurry bright haze around the centre",), ("two clear dark areas",)),
    "emphysema": Description(("hyperinflated lungs",), ("very large dark areas",), ("grey areas",)),
    "fibrosis": Description(("pulmonary scarring",), ("a coarse net of bright lines",), ("a smooth dark area",)),
    "pleural thickening": Description(("a thick pleura",), ("a thick bright rim",), ("a thin rim",)),
    "hernia": Description(("a hiatal hernia",), ("a round shape behind the centre",), ("a plain centre",)),
    "enlarged cardiomediastinum": Description(
        ("widening of the mediastinum",), ("a broad bright band in the centre",), ("a narrow bright band in the centre",)),
    "fracture": Description(("broken ribs", "broken bones"), ("a bright line that breaks off",), ("whole bright lines",)),
    "lung lesion": Description(("focal lung lesion",), ("a bright round shape in a dark area",), ("a dark area without shapes",)),
    "lung opacity": Description(
        ("opacity in the lung", "shadowing of the lung"), ("a bright patch in a dark area",), ("two clear dark areas",)),
    "pleural other": Description(("other pleural disease",), ("an uneven bright rim",), ("a thin even rim",)),
    "support devices": Description(
        ("tubes, lines or pacemakers", "catheters"), ("thin bright wires and tubes",), ("a picture without wires",)),
    "no finding": Description(
        (), ("a normal chest x-ray", "a radiograph of healthy lungs", "no abnormality", "two clear dark areas"),
        ("an abnormal chest x-ray", "a radiograph of diseased lungs", "an abnormality is present", "a bright patch"), whole=True),
}
