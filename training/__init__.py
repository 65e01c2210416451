"""Prepare data, train the network, measure it."""
