"""From CT series to organ masks and contours: geometry, network, bundle."""
