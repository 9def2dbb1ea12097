// Charts of the batch view, as SVG.
