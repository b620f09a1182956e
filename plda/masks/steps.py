"""What the steps of a refinement are called where people read of them."""

STEPS = {
    "pamr": "PAMR",
    "regions": "regions",
    "random_walk": "the random walk",
    "crf": "the CRF",
}
AFTER = {step: f"after {name}" for step, name in STEPS.items()}
