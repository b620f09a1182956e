"""Display names of the refinement steps."""

STEPS = {
    "pamr": "PAMR",
    "regions": "regions",
    "random_walk": "the random walk",
    "crf": "the CRF",
}
AFTER = {step: f"after {name}" for step, name in STEPS.items()}
