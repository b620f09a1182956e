"""The stages and runs, as the workflow engines need them, and tools that compare and publish runs."""
