"""What the engines need to know of the stages and of the runs."""
