"""What each kind of layer computes, one file a kind, without plan, kernels, backward pass or bytes."""
