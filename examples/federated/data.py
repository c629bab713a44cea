"""Writes owners/*.csv: the 569 tumours (Wolberg 1995, CC BY 4.0) as three hospitals of unequal size might hold them."""

from pathlib import Path

from sklearn.datasets import load_breast_cancer

found = load_breast_cancer(as_frame=True)
table = found.data.rename(columns=lambda name: name.replace(" ", "_"))
table["diagnosis"] = found.target.map(dict(enumerate(found.target_names)))
Path("owners").mkdir(exist_ok=True)
for name, rows in {"north": slice(0, 300), "south": slice(300, 480), "west": slice(480, None)}.items():
    table[rows].to_csv(f"owners/{name}.csv", index=False)
