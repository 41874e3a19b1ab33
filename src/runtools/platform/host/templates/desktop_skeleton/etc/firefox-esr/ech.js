// A hello that may hide another one is refused where the sandbox's egress policy has names.
pref("security.tls.ech.grease_probability", 0);
pref("network.dns.echconfig.enabled", false);
