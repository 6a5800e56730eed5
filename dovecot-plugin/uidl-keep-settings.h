/* The plugin's settings as Dovecot 2.4 wants them. The plugin is built with this and reads them.
   The settings module is built with it too, and tells Dovecot's config process their names. */
#ifndef UIDL_KEEP_SETTINGS_H
#define UIDL_KEEP_SETTINGS_H

struct uidl_keep_settings {
	pool_t pool;

	const char *uidl_keep_dir;
	const char *uidl_keep_match;
	bool uidl_keep_bake;
	bool uidl_keep_order;
};

extern const struct setting_parser_info uidl_keep_setting_parser_info;

#endif
