"""From films to sets of clips: cutting, scoring, judging, splitting and writing."""
