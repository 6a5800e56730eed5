/* The loader: Dovecot loads it as the plugin, and it loads the plugin that fits this Dovecot.

   A plugin is built for one ABI of Dovecot, and Dovecot refuses POP3 to everybody where it is for
   another. This file uses no header and no structure of Dovecot's, and has no
   uidl_keep_plugin_version, so that every Dovecot loads it (module-dir.c). It reads the ABI out of
   the libdovecot that is in its own process, and loads LIB/abi/ABI/lib95_uidl_keep_plugin.so, from
   preinit: that is before privileges are dropped and before any chroot.

   Where none fits, no migrated user may be served as if he were not one. POP3 then refuses
   everybody, unless it is certain that Dovecot's auth keeps them all out (`uidl-keep plugin
   guard`), or that nobody was migrated. Every other program goes on. To refuse, preinit names a
   plugin on which this one depends and which is not there: Dovecot then gives up this login, and
   the client hears a clean -ERR [SYS/TEMP]. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <mntent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* Tests name other places. */
#ifndef LIB
#  define LIB "/usr/lib/uidl-keep"
#endif
#ifndef SITE
#  define SITE "/var/lib/uidl-keep"
#endif
#ifndef FSTAB
#  define FSTAB "/etc/fstab"
#endif
#define PLUGIN_FILE "lib95_uidl_keep_plugin.so"
#define REFUSED ", so that POP3 refuses everybody"
/* The status of Dovecot's programs that give up. */
#define FATAL_DEFAULT 89
#define DOOR __attribute__((visibility("default")))

struct module;
DOOR void uidl_keep_plugin_preinit(void);
DOOR void uidl_keep_plugin_init(struct module *module);
DOOR void uidl_keep_plugin_deinit(void);
/* Dovecot looks into it after preinit: names of plugins, up to a NULL. */
DOOR extern const char *uidl_keep_plugin_dependencies[2];
const char *uidl_keep_plugin_dependencies[2];

static bool tried;
static void (*plugin_init)(struct module *module);
static void (*plugin_deinit)(void);
/* Why no plugin is loaded. */
static char why[PATH_MAX + 512];

/* The ABIs that libdovecot names: the first, and how often there was another. */
struct abi {
	char name[32];
	unsigned int others;
};

static const char *skip_digits(const char *p, const char *end)
{
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

/* The length of the name of an ABI at p, digits "." digits ".ABIv" digits, up to the NUL or the
   parenthesis that must follow; 0 if none is there. */
static size_t abi_len(const char *p, const char *end)
{
	const char *major = skip_digits(p, end), *minor, *number;

	if (major == p || major == end || *major != '.')
		return 0;
	minor = skip_digits(major + 1, end);
	if (minor == major + 1 || end - minor < 5 || memcmp(minor, ".ABIv", 5) != 0)
		return 0;
	number = skip_digits(minor + 5, end);
	if (number == minor + 5 || number == end || (*number != '\0' && *number != '('))
		return 0;
	return number - p;
}

static void note_abis(const char *start, const char *end, struct abi *abi)
{
	const char *mark = start, *p;
	size_t len;

	while ((mark = memmem(mark, end - mark, ".ABIv", 5)) != NULL) {
		for (p = mark; p > start && ((p[-1] >= '0' && p[-1] <= '9') || p[-1] == '.' ||
			(p[-1] >= 'A' && p[-1] <= 'Z') || (p[-1] >= 'a' && p[-1] <= 'z')); p--) ;
		len = abi_len(p, end);
		mark += 5;
		if (len == 0)
			continue;
		if (len >= sizeof(abi->name)) {
			abi->others++;
		} else if (abi->name[0] == '\0') {
			memcpy(abi->name, p, len);
		} else if (strlen(abi->name) != len || memcmp(abi->name, p, len) != 0) {
			abi->others++;
		}
	}
}

/* Looks into what a libdovecot has in memory and never writes. */
static int look_into(struct dl_phdr_info *info, size_t size __attribute__((unused)), void *context)
{
	const char *slash = strrchr(info->dlpi_name, '/');
	const char *file = slash == NULL ? info->dlpi_name : slash + 1;
	const ElfW(Phdr) *segment = info->dlpi_phdr;
	unsigned int left = info->dlpi_phnum;

	if (strncmp(file, "libdovecot.so", 13) != 0 || (file[13] != '\0' && file[13] != '.'))
		return 0;
	for (; left > 0; left--, segment++) {
		const char *start = (const char *)(info->dlpi_addr + segment->p_vaddr);

		if (segment->p_type == PT_LOAD && (segment->p_flags & (PF_R | PF_W)) == PF_R)
			note_abis(start, start + segment->p_filesz, context);
	}
	return 0;
}

/* Whether only root can have put there what is there. */
static bool is_roots(const char *path, mode_t type)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		snprintf(why, sizeof(why), "%s: %s", path, strerror(errno));
	else if ((st.st_mode & S_IFMT) != type)
		snprintf(why, sizeof(why), "%s: not a %s", path,
			 type == S_IFDIR ? "directory" : "regular file");
	else if (st.st_uid != 0 || (st.st_mode & 022) != 0)
		snprintf(why, sizeof(why), "%s: not root's, or others may write it", path);
	else
		return true;
	return false;
}

/* Whether all that the system would map of it is there: to touch what is not would end the
   program. */
static bool is_whole(const char *path)
{
	ElfW(Ehdr) header;
	ElfW(Phdr) segment;
	struct stat st;
	bool whole = false;
	unsigned int i;
	int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	if (fd >= 0 && fstat(fd, &st) == 0 &&
	    pread(fd, &header, sizeof(header), 0) == (ssize_t)sizeof(header) &&
	    memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_phnum > 0 &&
	    header.e_phentsize == sizeof(segment)) {
		whole = true;
		for (i = 0; whole && i < header.e_phnum; i++) {
			off_t place = header.e_phoff + i * sizeof(segment);

			whole = pread(fd, &segment, sizeof(segment), place) == (ssize_t)sizeof(segment) &&
				segment.p_offset <= (size_t)st.st_size &&
				segment.p_filesz <= (size_t)st.st_size - segment.p_offset;
		}
	}
	if (fd >= 0)
		close(fd);
	if (!whole)
		snprintf(why, sizeof(why), "%s: not a whole shared library", path);
	return whole;
}

/* Loads the plugin that fits. False: why says why there is none. */
static bool load_plugin(void)
{
	struct abi abi = { "", 0 };
	char dir[sizeof(LIB) + 64], path[sizeof(dir) + sizeof(PLUGIN_FILE) + 1];
	const char *const *version;
	void (*preinit)(void);
	void *handle;
	size_t len;

	dl_iterate_phdr(look_into, &abi);
	if (abi.name[0] == '\0' || abi.others > 0) {
		snprintf(why, sizeof(why), "%s in this process names %s ABI of Dovecot%s%s, so that none "
			 "of " LIB "/abi is known to fit", "libdovecot.so",
			 abi.others > 0 ? "more than one" : "no",
			 abi.others > 0 ? ", the first being " : "", abi.name);
		return false;
	}
	len = strlen(abi.name);
	snprintf(dir, sizeof(dir), LIB "/abi/%s", abi.name);
	snprintf(path, sizeof(path), "%s/" PLUGIN_FILE, dir);
	if (!is_roots(LIB, S_IFDIR) || !is_roots(LIB "/abi", S_IFDIR) || !is_roots(dir, S_IFDIR) ||
	    !is_roots(path, S_IFREG) || !is_whole(path)) {
		size_t used = strlen(why);

		snprintf(why + used, sizeof(why) - used, " (this is Dovecot %s)", abi.name);
		return false;
	}
	handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL) {
		snprintf(why, sizeof(why), "%s (this is Dovecot %s)", dlerror(), abi.name);
		return false;
	}
	version = dlsym(handle, "uidl_keep_plugin_version");
	*(void **)&preinit = dlsym(handle, "uidl_keep_plugin_preinit");
	*(void **)&plugin_init = dlsym(handle, "uidl_keep_plugin_init");
	*(void **)&plugin_deinit = dlsym(handle, "uidl_keep_plugin_deinit");
	if (version == NULL || *version == NULL || preinit == NULL || plugin_init == NULL ||
	    plugin_deinit == NULL) {
		snprintf(why, sizeof(why), "%s: no plugin of uidl-keep, for it lacks a symbol of one "
			 "(this is Dovecot %s)", path, abi.name);
	} else if (strncmp(*version, abi.name, len) != 0 ||
		   ((*version)[len] != '\0' && (*version)[len] != '(')) {
		snprintf(why, sizeof(why), "%s: is for Dovecot %.64s (this is Dovecot %s)", path,
			 *version, abi.name);
	} else {
		preinit();
		return true;
	}
	plugin_init = NULL;
	plugin_deinit = NULL;
	dlclose(handle);
	return false;
}

/* Whether this is the program that serves POP3: by a function that only that one has, or by its
   name. */
static bool is_pop3(void)
{
	char exe[PATH_MAX];
	ssize_t len = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (dlsym(RTLD_DEFAULT, "pop3_client_created_hook_set") != NULL)
		return true;
	return len >= 5 && memcmp(exe + len - 5, "/pop3", 5) == 0;
}

/* Whether Dovecot's master process started this one, for somebody whom auth has let in. */
static bool is_of_master(void)
{
	return getenv("DOVECOT_CHILD_PROCESS") != NULL;
}

/* Lets this process serve nobody after the login for which it loads us: whoever is migrated, and
   let in, a second later must not come to a process without a plugin. False: it may go on. */
static bool takes_no_more_logins(void)
{
	void (*stop)(void *service);
	void **service = dlsym(RTLD_DEFAULT, "master_service");

	*(void **)&stop = dlsym(RTLD_DEFAULT, "master_service_stop_new_connections");
	if (!is_of_master())
		return true;
	if (stop == NULL || service == NULL || *service == NULL)
		return false;
	stop(*service);
	return true;
}

/* Whether a path is a place, or lies below it. */
static bool is_below(const char *path, const char *place)
{
	size_t len = strlen(place);

	while (len > 1 && place[len - 1] == '/')
		len--;
	return len > 1 && strncmp(path, place, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

/* Whether nothing is mounted at this place, as far as /proc shows it: a part of the same file
   system, mounted there by "bind", has no other device. */
static bool is_bare(const char *place)
{
	char *real = realpath(place, NULL), text[4 * PATH_MAX];
	struct mntent *entry = NULL, buffer;
	FILE *mounts = setmntent("/proc/self/mounts", "re");

	while (real != NULL && mounts != NULL &&
	       (entry = getmntent_r(mounts, &buffer, text, sizeof(text))) != NULL &&
	       strcmp(entry->mnt_dir, real) != 0) ;
	if (mounts != NULL)
		endmntent(mounts);
	free(real);
	return entry == NULL;
}

/* Whether fstab says that the site is on a file system that is not mounted: what can be seen
   there is not the site, then. */
static bool awaits_mount(void)
{
	char *real = realpath(SITE, NULL);
	struct mntent *entry;
	bool awaits = real == NULL;
	FILE *fstab = setmntent(FSTAB, "re");

	if (fstab == NULL)
		awaits = awaits || errno != ENOENT;
	while (!awaits && fstab != NULL && (entry = getmntent(fstab)) != NULL)
		awaits = (is_below(SITE, entry->mnt_dir) || is_below(real, entry->mnt_dir)) &&
			is_bare(entry->mnt_dir);
	if (fstab != NULL)
		endmntent(fstab);
	free(real);
	return awaits;
}

/* Whether the site can be read, and has neither a roster nor an index. */
static bool nobody_was_migrated(void)
{
	static const char *const dirs[] = { SITE "/domain", SITE "/user" };
	bool nobody = true;
	unsigned int i;

	for (i = 0; nobody && i < 2; i++) {
		DIR *dir = opendir(dirs[i]);
		struct dirent *entry;

		if (dir == NULL)
			return false;
		for (errno = 0; nobody && (entry = readdir(dir)) != NULL; errno = 0) {
			const char *suffix = strrchr(entry->d_name, '.');

			nobody = suffix == NULL ||
				(strcmp(suffix, ".roster") != 0 && strcmp(suffix, ".idx") != 0);
		}
		nobody = nobody && errno == 0;
		closedir(dir);
	}
	return nobody && !awaits_mount();
}

/* What auth says. */
struct answers {
	int fd;
	/* How much of the buffer is filled, and how much of that was looked at. */
	size_t used, done;
	char buffer[4096];
};

/* Reads on until a line begins with one of two words. Returns it, or NULL. */
static char *read_answer(struct answers *from, const char *one, const char *other)
{
	for (;;) {
		char *end, *line = from->buffer + from->done;
		ssize_t got;

		while ((end = memchr(line, '\n', from->used - from->done)) != NULL) {
			*end = '\0';
			from->done = end + 1 - from->buffer;
			if (strncmp(line, one, strlen(one)) == 0 ||
			    strncmp(line, other, strlen(other)) == 0)
				return line;
			line = end + 1;
		}
		from->used -= from->done;
		memmove(from->buffer, from->buffer + from->done, from->used);
		from->done = 0;
		got = from->used == sizeof(from->buffer) ? -1 :
			recv(from->fd, from->buffer + from->used, sizeof(from->buffer) - from->used, 0);
		if (got <= 0)
			return NULL;
		from->used += got;
	}
}

/* Reads the start of a file into a buffer, as text. False if it is not there, or empty. */
static bool read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[len < 0 ? 0 : len] = '\0';
	return len > 0;
}

/* Writes what no other process is called, also after another boot: its number, when it was started
   (field 22 of its stat, proc(5)), and the boot. As src/dovecot/guard.rs does. */
static bool name_process(const char *pid, char *name, size_t size)
{
	char path[64], stat[1024], boot[64], *field;
	int number = 2;

	if (pid[0] == '\0' || strlen(pid) > 20 || pid[strspn(pid, "0123456789")] != '\0')
		return false;
	snprintf(path, sizeof(path), "/proc/%s/stat", pid);
	if (!read_text(path, stat, sizeof(stat)) ||
	    !read_text("/proc/sys/kernel/random/boot_id", boot, sizeof(boot)))
		return false;
	/* The second is the name of the program, which may have blanks. */
	field = strrchr(stat, ')');
	for (; field != NULL && number < 22; number++)
		field = strchr(field + 1, ' ');
	if (field == NULL)
		return false;
	field++;
	field[strspn(field, "0123456789")] = '\0';
	boot[strcspn(boot, "\n")] = '\0';
	return field[0] != '\0' && boot[0] != '\0' &&
		(size_t)snprintf(name, size, "%s:%s:%s", pid, field, boot) < size;
}

/* Whether the master of this process is the one whose auth answers at that socket. */
static bool is_our_masters(const char *socket_path)
{
	static const char file[] = "master.pid";
	const char *slash = strrchr(socket_path, '/');
	char path[108 + sizeof(file)], text[32], ours[32];

	if (slash == NULL)
		return false;
	snprintf(path, sizeof(path), "%.*s%s", (int)(slash + 1 - socket_path), socket_path, file);
	snprintf(ours, sizeof(ours), "%ld", (long)getppid());
	if (!read_text(path, text, sizeof(text)))
		return false;
	text[strcspn(text, "\n")] = '\0';
	return strcmp(text, ours) == 0;
}

/* PLAIN's response in Base64: a NUL, the user, a NUL, "x". */
static void plain_response(const char *user, char *out)
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned char in[304] = "";
	size_t len = strlen(user), i;

	memcpy(in + 1, user, len);
	in[len + 2] = 'x';
	len += 3;
	for (i = 0; i < len; i += 3, out += 4) {
		out[0] = letters[in[i] >> 2];
		out[1] = letters[(in[i] & 3) << 4 | in[i + 1] >> 4];
		out[2] = i + 1 < len ? letters[(in[i + 1] & 15) << 2 | in[i + 2] >> 6] : '=';
		out[3] = i + 2 < len ? letters[in[i + 2] & 63] : '=';
	}
	*out = '\0';
}

/* Whether auth is the process of that name, for which all was proven, and refuses this user, whom
   this version of the guard's file alone names, in the way of that file. */
static bool auth_refuses(const char *socket_path, const char *process, const char *user)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { .tv_sec = 10 };
	struct answers answers = { .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	char response[412], request[600], name[96];
	const char *answer = NULL;
	int fd = answers.fd, len;

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
	if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0 &&
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) == 0 &&
	    connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
		len = snprintf(request, sizeof(request), "VERSION\t1\t1\nCPID\t%ld\n", (long)getpid());
		if (send(fd, request, len, MSG_NOSIGNAL) == len)
			answer = read_answer(&answers, "SPID\t", "DONE");
		if (answer != NULL && strncmp(answer, "SPID\t", 5) == 0 &&
		    name_process(answer + 5, name, sizeof(name)) && strcmp(name, process) == 0)
			answer = read_answer(&answers, "DONE", "DONE");
		else
			answer = NULL;
		plain_response(user, response);
		/* 2.3 reads service, 2.4 protocol. */
		len = snprintf(request, sizeof(request), "AUTH\t1\tPLAIN\tservice=pop3\tprotocol=pop3\t"
			       "secured\tno-penalty\tresp=%s\n", response);
		if (answer != NULL && send(fd, request, len, MSG_NOSIGNAL) == len)
			answer = read_answer(&answers, "OK\t1\t", "FAIL\t1\t");
		else
			answer = NULL;
	}
	if (fd >= 0)
		close(fd);
	return answer != NULL && strstr(answer, "\tnologin") != NULL &&
		strstr(answer, "\treason=[SYS/TEMP]") != NULL;
}

/* Whether auth has kept out everybody who was migrated. The first line of its file says that the
   file names them all, where auth is asked, for which process of it all was proven, and whom to
   ask it about. It must be the auth that has let in the user of this process. */
static bool guard_is_on(void)
{
	char head[640], socket_path[108], process[96], user[256];
	struct stat st;
	ssize_t len = -1;
	int end = 0, fd = open(SITE "/auth/stop-pop3", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (is_of_master() && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == 0 &&
	    (st.st_mode & 022) == 0)
		len = read(fd, head, sizeof(head) - 1);
	close(fd);
	if (len < 0)
		return false;
	head[len] = '\0';
	return sscanf(head, "# uidl-keep-guard 1 %107[^ \n] %95[^ \n] %255[^ \n]%n", socket_path,
		      process, user, &end) == 3 &&
		head[end] == '\n' && is_our_masters(socket_path) &&
		auth_refuses(socket_path, process, user);
}

/* Logs by Dovecot's own function: i_warning, i_error, or i_fatal, which does not return. */
static void say(const char *function, const char *what)
{
	void (*log)(const char *format, ...);

	*(void **)&log = dlsym(RTLD_DEFAULT, function);
	if (log != NULL)
		log("uidl-keep: no plugin is loaded%s: %s; run: uidl-keep plugin status", what, why);
	else
		fprintf(stderr, "uidl-keep: no plugin is loaded%s: %s; run: uidl-keep plugin status\n",
			what, why);
}

void uidl_keep_plugin_preinit(void)
{
	tried = true;
	uidl_keep_plugin_dependencies[0] = NULL;
	if (load_plugin())
		return;
	if (!is_pop3()) {
		say("i_warning", "");
	} else if (nobody_was_migrated() && takes_no_more_logins()) {
		say("i_warning", ", and nobody is on a roster");
	} else if (guard_is_on() && takes_no_more_logins()) {
		say("i_warning", ", and auth refuses the migrated at POP3");
	} else {
		say("i_error", REFUSED);
		uidl_keep_plugin_dependencies[0] = "see-uidl-keep-plugin-status";
	}
}

void uidl_keep_plugin_init(struct module *module)
{
	if (!tried)
		uidl_keep_plugin_preinit();
	if (uidl_keep_plugin_dependencies[0] != NULL) {
		/* A Dovecot that goes on all the same. */
		say("i_fatal", REFUSED);
		_exit(FATAL_DEFAULT);
	}
	if (plugin_init != NULL)
		plugin_init(module);
}

void uidl_keep_plugin_deinit(void)
{
	if (plugin_deinit != NULL)
		plugin_deinit();
}
