"""Personal data in texts: e-mail addresses, public IP addresses, IBANs and telephone numbers."""
