"""What is for scikit-learn: values in, attributes out; nothing below imports scikit-learn's estimators."""
