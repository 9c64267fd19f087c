"""What each party of a federation did, for the owner of its rows: never on a page to hand on."""
