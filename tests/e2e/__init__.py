"""Whole services, with real programs behind them."""
