"""What hides one unit: independent and correlated noise, the only makers of a `Release`."""
