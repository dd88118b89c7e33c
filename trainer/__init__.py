"""A PyTorch trainer of Mixture-of-Experts language models that measures what the simulator predicts."""
