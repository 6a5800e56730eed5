/* The settings' names, types and defaults for Dovecot 2.4. uidl-keep-settings.h says who uses them.
   Dovecot 2.3 has plugin {}, which needs none of this. */

#include "lib.h"

#if DOVECOT_VERSION_MINOR >= 4

#include "settings-parser.h"
#include "settings.h"
#include "uidl-keep-settings.h"

#undef DEF
#define DEF(type, name) \
	SETTING_DEFINE_STRUCT_##type(#name, name, struct uidl_keep_settings)

static const struct setting_define uidl_keep_setting_defines[] = {
	DEF(STR, uidl_keep_dir),
	DEF(STR, uidl_keep_match),
	DEF(BOOL, uidl_keep_bake),
	DEF(BOOL, uidl_keep_order),

	SETTING_DEFINE_LIST_END
};

static const struct uidl_keep_settings uidl_keep_default_settings = {
	.uidl_keep_dir = "/var/lib/uidl-keep",
	.uidl_keep_match = "file message header",
	.uidl_keep_bake = TRUE,
	.uidl_keep_order = TRUE,
};

const struct setting_parser_info uidl_keep_setting_parser_info = {
	.name = "uidl_keep",

	.defines = uidl_keep_setting_defines,
	.defaults = &uidl_keep_default_settings,

	.struct_size = sizeof(struct uidl_keep_settings),
	.pool_offset1 = 1 + offsetof(struct uidl_keep_settings, pool),
};

#ifdef UIDL_KEEP_SETTINGS_MODULE
/* Dovecot's config looks for this in modules/settings/lib95_uidl_keep_settings.so. */
extern const struct setting_parser_info *const uidl_keep_settings_set_infos[];
const struct setting_parser_info *const uidl_keep_settings_set_infos[] = {
	&uidl_keep_setting_parser_info,
	NULL
};

extern const char *uidl_keep_settings_version;
const char *uidl_keep_settings_version = DOVECOT_ABI_VERSION;
#endif

#endif
