/* The whole C surface that bindgen sees. */

#include "lib.h"			/* what every Dovecot header wants first; DOVECOT_ABI_VERSION comes with it */
#include "mail-storage-private.h"	/* the method tables that are overridden: mailbox_vfuncs, mail_vfuncs */
#include "mail-storage-hooks.h"		/* the hooks that lead to them */
#include "mail-user.h"			/* mail_user_vfuncs, for the user's end */
#include "maildir-uidlist.h"		/* the bake: P and O of dovecot-uidlist */
#include "shim.h"			/* what is a macro, an inline function or a bitfield in the above */
