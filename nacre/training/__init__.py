"""From a recipe to a trained model: plan, check, reserve, step, settle."""
