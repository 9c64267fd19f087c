"""What `nacre plan` refuses before a row is read, by what each refusal looks at."""
