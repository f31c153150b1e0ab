"""Networks as functions of packed parameters: layouts, values and gradients."""
