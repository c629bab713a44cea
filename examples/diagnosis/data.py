"""Writes tumours.csv: 569 tumours, 30 measurements of each, and the diagnosis (Wolberg 1995, CC BY 4.0)."""

from sklearn.datasets import load_breast_cancer

found = load_breast_cancer(as_frame=True)
table = found.data.rename(columns=lambda name: name.replace(" ", "_"))
table["diagnosis"] = found.target.map(dict(enumerate(found.target_names)))
table.to_csv("tumours.csv", index=False)
