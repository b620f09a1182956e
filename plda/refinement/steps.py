"""Display names of the refinement steps."""

STEPS = {
    "pamr": "PAMR",
    "guided_filter": "the guided filter",
    "regions": "regions",
    "random_walk": "the random walk",
    "crf": "the CRF",
}
AFTER = {step: f"after {name}" for step, name in STEPS.items()}
