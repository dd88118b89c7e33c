"""The network as a directed graph: topologies, routes, collectives and what they cost."""
