"""Records shared by prediction, measurement and calibration; free of fabrics, networkx and torch."""
