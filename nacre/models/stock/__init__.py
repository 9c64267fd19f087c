"""Stock transformers, as their own library has them, behind one tensor of inputs."""
