# make            build/kvstored, build/kvctl, build/libkvstore.a and .so
# make run        set up, build, and run the daemon here in the foreground
# make check      set up, build, and run every test, with sanitizers and without
# make help       the other targets
# V=1 prints the full commands.

# The version is that of client/lib/kvstore.h; the build fails if another one is set here.
VERSION := $(shell awk '/define KVS_VERSION_(MAJOR|MINOR|PATCH) / {printf "%s%s", dot, $$3; dot = "."}' client/lib/kvstore.h)
SOVERSION := 0

PREFIX ?= /usr/local
# Below another prefix an ordinary user installs what needs no privilege: no units, and all files below the prefix.
SYSTEM ?= $(if $(filter /usr /usr/local,$(PREFIX)),yes)
BINDIR ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR ?= $(PREFIX)/share/man
SYSCONFDIR ?= $(if $(SYSTEM),/etc,$(PREFIX)/etc)
UNITDIR ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
TMPFILESDIR ?= $(PREFIX)/lib/tmpfiles.d
DOCDIR ?= $(PREFIX)/share/doc/kvstored
BASHCOMPDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR ?= $(PREFIX)/share/zsh/site-functions
FISHCOMPDIR ?= $(PREFIX)/share/fish/vendor_completions.d
# Where Debian's Python looks; below another prefix PYTHONPATH must name it. Without Python there is no package.
PYTHON ?= /usr/bin/python3
PYTHON_VERSION = $(shell $(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null)
PYTHONDIR ?= $(if $(filter /usr,$(PREFIX)),/usr/lib/python3,$(PREFIX)/lib/$(PYTHON_VERSION))/dist-packages

# --- How to compile ----------------------------------------------------------------------------
# VARIANT=asan builds the same targets below build/asan, with AddressSanitizer and UBSan. It is the default of
# `make unit`, `make integration` and `make fault`.

TEST_VARIANT := $(or $(VARIANT),asan)
VARIANT ?= release
ifeq ($(VARIANT),asan)
B := build/asan
OPTIMISE := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
else
B := build
OPTIMISE := -O2 -D_FORTIFY_SOURCE=2 -fstack-protector-strong
endif

CC ?= cc
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-format-truncation -Werror
# Expanded only when something is linked: on a bare system bootstrap installs pkg-config first.
CLIENT_PKGS = $(shell pkg-config --exists msgpack-c && echo msgpack-c || echo msgpack)
PKGS = libnats libuv $(CLIENT_PKGS) yaml-0.1 jansson libssl libcrypto libsystemd libmicrohttpd
CFLAGS ?= -g
CPPFLAGS += -I. -D_GNU_SOURCE -DKVSTORED_VERSION='"$(VERSION)"'
COMPILE = $(CC) -std=gnu11 $(OPTIMISE) $(WARNINGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP
LINK = $(CC) $(OPTIMISE) $(CFLAGS) $(LDFLAGS)
LIBS = $(shell pkg-config --libs $(PKGS)) -lpthread -lm
CLIENT_LIBS = $(shell pkg-config --libs $(CLIENT_PKGS))

# Print one line for each file: $(call print,CC,FILE) in a recipe whose other commands begin with $(Q).
ifeq ($(V),1)
Q :=
print = @:
else
Q := @
# make -s prints nothing; the first word of MAKEFLAGS holds the options of one letter.
print = @$(if $(findstring s,$(firstword -$(MAKEFLAGS))),:,printf '  %-7s %s\n' $(1) $(2))
endif

# --- What is built from what ---------------------------------------------------------------------

PROTO := $(wildcard proto/*.c)
CONF := $(wildcard conf/*.c)
DAEMON := $(wildcard daemon/*.c daemon/*/*.c daemon/*/*/*.c)
LIBKVSTORE := $(wildcard client/lib/*.c)
# The library keeps its own names of proto for itself.
KVCTL := $(wildcard client/kvctl/*.c) proto/kv_check.c proto/utf8.c
CLIENT_HEADERS := $(wildcard client/lib/kvstore*.h client/adapters/*.h)
EXAMPLES := $(wildcard client/examples/*.c)
UNIT := $(wildcard tests/unit/*.c) $(addprefix tests/support/,selection.c test_run.c) tests/scale/growth.c \
    tests/bench/process.c tests/bench/table.c
SUPPORT := $(wildcard tests/support/*.c)
INTEGRATION := $(SUPPORT) $(wildcard tests/integration/*.c)
FAULT := $(SUPPORT) $(wildcard tests/fault/*.c)
BENCH := $(wildcard tests/bench/*.c) $(wildcard tests/support/attack*.c) $(addprefix tests/support/,command.c \
    flood.c neighbour.c ports.c)

# scale uses the servers and clients of the benchmark.
SCALE := $(wildcard tests/scale/*.c) $(addprefix tests/bench/,process.c servers.c load.c protocols.c raw.c table.c) \
    $(addprefix tests/support/,command.c neighbour.c ports.c)

# The simulation has the daemon's rooms from transport to nats, and its own libuv, connection, clock, chance, log and
# socket.
SIM := $(wildcard tests/sim/*.c) $(addprefix tests/support/,lock_check.c test_run.c)
SIMULATED := $(filter-out daemon/main.c $(addprefix daemon/base/,clock.c chance.c log.c) daemon/transport/socket.c \
    $(addprefix daemon/nats/,connection.c connection_state.c wire.c dialer.c ping.c former.c libnats.c tls.c \
    credentials.c secrets.c nkey.c),$(DAEMON))
DIFFERENTIAL := $(wildcard tests/sim/differential/*.c) proto/kv_check.c daemon/nats/kv.c daemon/nats/message.c daemon/base/hash.c \
    $(addprefix tests/sim/,world.c doors.c memory.c packet.c link.c server.c api.c stream.c publish.c consumers.c)

objects = $(patsubst %.c,$(B)/obj/%.o,$(1))
pic_objects = $(patsubst %.c,$(B)/pic/%.o,$(1))

.PHONY: all
all: $(B)/kvstored $(B)/kvctl $(B)/libkvstore.a $(B)/libkvstore.so
	@:

$(B)/kvstored: $(call objects,$(PROTO) $(CONF) $(DAEMON))
	$(call print,LD,$@)
	$(Q)$(LINK) -pie -o $@ $^ $(LIBS)

$(B)/libkvstore.a: $(call pic_objects,$(PROTO) $(LIBKVSTORE))
	@# Link one object whose only global names are kvs_*, so that no other name can clash with a program's own.
	$(call print,AR,$@)
	$(Q)ld -r -o $(B)/libkvstore.o $^
	$(Q)objcopy --wildcard --keep-global-symbol='kvs_*' $(B)/libkvstore.o
	$(Q)rm -f $@ && ar rcs $@ $(B)/libkvstore.o

$(B)/libkvstore.so.$(SOVERSION): $(call pic_objects,$(PROTO) $(LIBKVSTORE)) client/lib/libkvstore.map
	$(call print,LD,$@)
	$(Q)$(LINK) -shared -Wl,-soname,libkvstore.so.$(SOVERSION) -Wl,--version-script=client/lib/libkvstore.map -o $@ $(filter %.o,$^) $(CLIENT_LIBS)

$(B)/libkvstore.so: $(B)/libkvstore.so.$(SOVERSION)
	$(call print,LN,$@)
	$(Q)ln -sf libkvstore.so.$(SOVERSION) $@

$(B)/kvctl: $(call objects,$(KVCTL)) $(B)/libkvstore.a
	$(call print,LD,$@)
	$(Q)$(LINK) -pie -o $@ $^ $(CLIENT_LIBS) $(shell pkg-config --libs-only-L libcrypto) -l:libcrypto.a -lm

.PHONY: examples
examples: $(patsubst client/examples/%.c,$(B)/examples/%,$(EXAMPLES))
$(B)/examples/%: $(B)/obj/client/examples/%.o $(B)/libkvstore.a
	$(call print,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(LINK) -pie -o $@ $^ $(CLIENT_LIBS) $(if $(filter %/libuv,$@),$(shell pkg-config --libs libuv))

$(B)/unit: $(call objects,$(UNIT) $(PROTO) $(CONF) $(filter-out daemon/main.c,$(DAEMON)))
	$(call print,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(LIBS) $(shell pkg-config --libs check) -lm

$(B)/sim: $(call objects,$(SIM) $(PROTO) $(CONF) $(SIMULATED))
	$(call print,LD,$@)
	$(Q)$(LINK) -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc -o $@ $^ $(LIBS)

$(B)/sim_differential: $(call objects,$(DIFFERENTIAL))
	$(call print,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(shell pkg-config --libs libnats jansson libcrypto) -lm

$(B)/bench: $(call objects,$(BENCH)) $(B)/libkvstore.a
	$(call print,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(CLIENT_LIBS) $(shell pkg-config --libs libnats) -lpthread

$(B)/scale: $(call objects,$(SCALE)) $(B)/libkvstore.a
	$(call print,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(CLIENT_LIBS) -lpthread -lm

$(B)/integration: $(call objects,$(INTEGRATION)) $(B)/libkvstore.a
	$(call print,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(CLIENT_LIBS) $(shell pkg-config --libs check jansson libssl libcrypto libuv) -lpthread

$(B)/fault: $(call objects,$(FAULT)) $(B)/libkvstore.a
	$(call print,LD,$@)
	$(Q)$(LINK) -o $@ $^ $(CLIENT_LIBS) $(shell pkg-config --libs check jansson libssl libcrypto) -lpthread

# The examples say #include <kvstore.h>, as a user's program does, and so do the adapters.
$(B)/obj/client/examples/%.o: CPPFLAGS += -Iclient/lib -Iclient/adapters
$(B)/obj/tests/integration/libuv_test.o: CPPFLAGS += -Iclient/lib

$(B)/obj/%.o: %.c
	$(call print,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -fPIE -c -o $@ $<

$(B)/pic/%.o: %.c
	$(call print,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -fPIC -c -o $@ $<

# These have the version from the command line, and are compiled again when it changes.
$(call objects,$(shell grep -l KVSTORED_VERSION $(DAEMON))): client/lib/kvstore.h

-include $(shell find $(B)/obj $(B)/pic -name '*.d' 2>/dev/null)

# What clangd and other tools need to know: one command for each source file.
.PHONY: compile_commands.json
compile_commands.json:
	$(Q)$(MAKE) --no-print-directory -nB V=1 all examples $(addprefix $(B)/,unit integration fault bench scale sim sim_differential) | \
	    sed -n 's/\\/\\\\/g; s/"/\\"/g; s|^\(.* -c -o [^ ]* \([^ ]*[.]c\)\)$$|{"directory": "$(CURDIR)", "file": "\2", "command": "\1"}|p' | \
	    sort -u -t '"' -k 8,8 | sed '1s/^/[\n/; $$!s/$$/,/; $$s/$$/\n]/' >$@

# --- Running it here -----------------------------------------------------------------------------

.PHONY: run
run:
	@./bootstrap run
	@$(MAKE) --no-print-directory -j2 all
	@mkdir -p run
	@[ -e run/kvstored.yaml ] || printf '%s\n' \
	    'listen:' '  path: run/kvstored.sock' \
	    'nats:' '  mode: embedded' '  data_dir: run/data' "  server_binary: $$(cat build/nats-server.path)" >run/kvstored.yaml
	@exec build/kvstored --config run/kvstored.yaml --hints

# --- Tests -----------------------------------------------------------------------------------------

.PHONY: check
check:
	@./bootstrap check
	@tests/run

# One layer, or the part of it that SUITE and TEST select: names or shell patterns.
.PHONY: unit integration fault
SUITE ?=
TEST ?=
unit integration fault:
	@./bootstrap test
	@$(MAKE) --no-print-directory -j2 VARIANT=$(TEST_VARIANT) tests-$@
tests-%: all $(B)/%
	@SUITE='$(SUITE)' TEST='$(TEST)' exec $(B)/$*

.PHONY: fuzz
FUZZ_SECONDS ?= 600
fuzz:
	@./bootstrap check
	@$(MAKE) --no-print-directory -s -j2 all VARIANT=asan
	tests/fuzz/run $(FUZZ_SECONDS) frame rpc conf protocol

# SEEDS runs of the simulation; SEED=n runs one seed, and TRACE=1 prints what happens in it. See tests/sim.
.PHONY: sim
SEEDS ?= 1000
SEED ?=
TRACE ?=
sim:
	@./bootstrap test
	@$(MAKE) --no-print-directory -s -j2 VARIANT=$(TEST_VARIANT) sim-program
	@build/$(if $(filter asan,$(TEST_VARIANT)),asan/)sim $(if $(SEED),$(if $(TRACE),--trace $(SEED),1 $(SEED)),$(SEEDS))
.PHONY: sim-program
sim-program: $(B)/sim

.PHONY: chaos
CHAOS_MINUTES ?= 30
chaos:
	@./bootstrap check
	@$(MAKE) --no-print-directory -s -j2 VARIANT=asan all build/asan/fault
	tests/chaos $(CHAOS_MINUTES)

# Every suite with an external nats-server, over TLS 1.2 and 1.3.
.PHONY: over-tls
over-tls:
	@./bootstrap test
	@$(MAKE) --no-print-directory -s -j2 VARIANT=asan all build/asan/integration build/asan/fault
	tests/over_tls 1.2 all
	tests/over_tls 1.3 all

# Every acknowledged write must survive a power failure at any of POWER_MOMENTS moments.
.PHONY: power
POWER_MOMENTS ?= 1000
POWER_SEED ?=
power:
	@./bootstrap check
	@$(MAKE) --no-print-directory -s -j2 all
	tests/power/run $(POWER_MOMENTS) --rounds 4 $(if $(POWER_SEED),--seed $(POWER_SEED))

# Load KEYS keys into memory, and measure the memory and the time.
.PHONY: soak
KEYS ?= 1000000
soak:
	@./bootstrap check
	@$(MAKE) --no-print-directory -j2 all
	@BUILD=build tests/with_daemon tests/soak $(KEYS)

# ROWS='bulk*' measures only the rows that match the pattern. STRICT=1 fails if a row misses its expected figure.
.PHONY: bench
ROWS ?=
STRICT ?=
bench:
	@./bootstrap bench
	@$(MAKE) --no-print-directory -j2 all $(B)/bench
	@rm -rf build/bench.d && mkdir -p build/bench.d
	@$(B)/bench $(if $(STRICT),--strict) "$(CURDIR)/$(B)/kvstored" "$$(cat build/nats-server.path)" "$$(cat build/redis-server.path)" \
	    "$(CURDIR)/build/bench.d" "$(CURDIR)/build/bench.json" $(if $(ROWS),'$(ROWS)')

# The cost of each operation as keys, buckets and sessions grow to these sizes. AXES='keys watches' measures only those.
.PHONY: scale
SCALE_KEYS ?= 1000000
SCALE_BUCKETS ?= 10000
SCALE_SESSIONS ?= 20000
AXES ?=
scale:
	@./bootstrap run
	@$(MAKE) --no-print-directory -j2 all $(B)/scale
	@rm -rf build/scale.d && mkdir -p build/scale.d
	@$(B)/scale "$(CURDIR)/$(B)/kvstored" "$$(cat build/nats-server.path)" "$(CURDIR)/build/scale.d" \
	    "$(CURDIR)/build/scale.json" $(SCALE_KEYS) $(SCALE_BUCKETS) $(SCALE_SESSIONS) $(AXES)

# The sample configuration, its manual page and the table in C, from conf/settings.md.
.PHONY: settings
settings:
	conf/settings.py

.PHONY: lint format
lint:
	@./bootstrap check
	tests/lint
format:
	@./bootstrap check
	tests/lint --format

# --- Installing ------------------------------------------------------------------------------------

# Fill in the templates.
FILL = sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|; s|@VERSION@|$(VERSION)|' \
    -e 's|@REQUIRES@|$(CLIENT_PKGS)|; s|@SBINDIR@|$(SBINDIR)|; s|@SYSCONFDIR@|$(SYSCONFDIR)|'

# Set the paths of a user's own daemon.
USER_PATHS = -e 's|^  \#path: .*|  path: $(PREFIX)/var/kvstored.sock|; s|^  \#data_dir: .*|  data_dir: $(PREFIX)/var/kvstored|'
INSTALLED_CONFIG = $(DESTDIR)$(SYSCONFDIR)/kvstored/kvstored.yaml
INSTALLED_DIRS = $(SYSCONFDIR)/kvstored $(DOCDIR) $(if $(SYSTEM),,$(SYSCONFDIR) $(PREFIX)/share/doc $(MANDIR)/man1 \
    $(MANDIR)/man3 $(MANDIR)/man5 $(MANDIR)/man8 $(MANDIR) $(BASHCOMPDIR) $(PREFIX)/share/bash-completion $(ZSHCOMPDIR) \
    $(PREFIX)/share/zsh $(FISHCOMPDIR) $(PREFIX)/share/fish $(PREFIX)/share $(LIBDIR)/pkgconfig $(PYTHONDIR) \
    $(dir $(PYTHONDIR)) $(LIBDIR) $(INCLUDEDIR) $(BINDIR) $(SBINDIR) $(PREFIX)/var)
# The documents keep their places in the sources, so that the links between them work.
DOCUMENTS = README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md client/lib/kvstore.h conf/kvstored.yaml conf/settings.md \
    proto/protocol.md tests/bench/README.md tests/sim/README.md \
    $(wildcard docs/*.md docs/guides/*.md docs/monitoring/*.yml docs/monitoring/*.json client/examples/*.c \
    client/examples/clients/go/*.go client/examples/clients/node/*.mjs)
PYTHON_FILES = $(patsubst client/python/%,%,$(wildcard client/python/kvstored/*.py) client/python/kvstored/py.typed)

# Make directories with this mode. `install -d` alone would also change the mode of those that exist.
install_dirs = for directory in $(2); do [ -d "$$directory" ] || install -d -m $(1) "$$directory" || exit 1; done

.PHONY: install install-units
install: all $(if $(SYSTEM),install-units)
	$(call install_dirs,755,$(addprefix $(DESTDIR),$(SBINDIR) $(BINDIR) $(LIBDIR)/pkgconfig $(INCLUDEDIR) $(SYSCONFDIR)/kvstored))
	$(if $(SYSTEM),,$(call install_dirs,700,$(DESTDIR)$(PREFIX)/var))
	install -m 755 $(B)/kvstored $(DESTDIR)$(SBINDIR)/kvstored
	install -m 755 $(B)/kvctl $(DESTDIR)$(BINDIR)/kvctl
	install -m 644 $(B)/libkvstore.a $(DESTDIR)$(LIBDIR)/libkvstore.a
	install -m 755 $(B)/libkvstore.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libkvstore.so.$(SOVERSION)
	ln -sf libkvstore.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/libkvstore.so
	install -m 644 $(CLIENT_HEADERS) $(DESTDIR)$(INCLUDEDIR)
	$(FILL) client/lib/kvstore.pc.in | install -m 644 /dev/stdin $(DESTDIR)$(LIBDIR)/pkgconfig/kvstore.pc
	install -D -m 644 client/completion/kvctl.bash $(DESTDIR)$(BASHCOMPDIR)/kvctl
	install -D -m 644 client/completion/_kvctl $(DESTDIR)$(ZSHCOMPDIR)/_kvctl
	install -D -m 644 client/completion/kvctl.fish $(DESTDIR)$(FISHCOMPDIR)/kvctl.fish
	$(if $(PYTHON_VERSION),for file in $(PYTHON_FILES); do \
	    install -D -m 644 client/python/$$file $(DESTDIR)$(PYTHONDIR)/$$file || exit 1; done)
	for file in $(DOCUMENTS); do \
	    install -D -m 644 $$file $(DESTDIR)$(DOCDIR)/$$file || exit 1; done
	[ -e $(INSTALLED_CONFIG) ] || \
	    sed -e '' $(if $(SYSTEM),,$(USER_PATHS)) conf/kvstored.yaml | install -m 640 /dev/stdin $(INSTALLED_CONFIG)
	for page in $(wildcard docs/man/*.[1-8]); do \
	    install -D -m 644 $$page $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/} || exit 1; done

install-units:
	$(call install_dirs,755,$(addprefix $(DESTDIR),$(UNITDIR) $(SYSUSERSDIR) $(TMPFILESDIR)))
	$(FILL) systemd/kvstored.service.in | install -m 644 /dev/stdin $(DESTDIR)$(UNITDIR)/kvstored.service
	install -m 644 systemd/kvstored.socket $(DESTDIR)$(UNITDIR)/kvstored.socket
	install -D -m 644 systemd/private-network.conf $(DESTDIR)$(DOCDIR)/private-network.conf
	install -m 644 systemd/kvstored.sysusers $(DESTDIR)$(SYSUSERSDIR)/kvstored.conf
	$(FILL) systemd/kvstored.tmpfiles.in | install -m 644 /dev/stdin $(DESTDIR)$(TMPFILESDIR)/kvstored.conf

# Removes what `make install` with the same PREFIX has installed. A changed configuration and the data stay.
.PHONY: uninstall
uninstall:
	rm -f $(DESTDIR)$(SBINDIR)/kvstored $(DESTDIR)$(BINDIR)/kvctl $(DESTDIR)$(LIBDIR)/libkvstore.a \
	    $(DESTDIR)$(LIBDIR)/libkvstore.so $(DESTDIR)$(LIBDIR)/libkvstore.so.$(SOVERSION) \
	    $(addprefix $(DESTDIR)$(INCLUDEDIR)/,$(notdir $(CLIENT_HEADERS))) $(DESTDIR)$(LIBDIR)/pkgconfig/kvstore.pc \
	    $(DESTDIR)$(BASHCOMPDIR)/kvctl $(DESTDIR)$(ZSHCOMPDIR)/_kvctl $(DESTDIR)$(FISHCOMPDIR)/kvctl.fish \
	    $(addprefix $(DESTDIR)$(DOCDIR)/,$(DOCUMENTS))
	for directory in $(sort $(filter-out ./,$(dir $(DOCUMENTS)))); do \
	    (cd $(DESTDIR)$(DOCDIR) && rmdir -p --ignore-fail-on-non-empty "$$directory") 2>/dev/null || true; done
	$(if $(PYTHON_VERSION),rm -rf $(DESTDIR)$(PYTHONDIR)/kvstored)
	$(if $(SYSTEM),rm -f $(addprefix $(DESTDIR),$(UNITDIR)/kvstored.service $(UNITDIR)/kvstored.socket \
	    $(SYSUSERSDIR)/kvstored.conf $(TMPFILESDIR)/kvstored.conf $(DOCDIR)/private-network.conf))
	for page in $(wildcard docs/man/*.[1-8]); do \
	    rm -f $(DESTDIR)$(MANDIR)/man$${page##*.}/$${page##*/}; done
	! sed -e '' $(if $(SYSTEM),,$(USER_PATHS)) conf/kvstored.yaml | cmp -s - $(INSTALLED_CONFIG) || rm -f $(INSTALLED_CONFIG)
	for directory in $(addprefix $(DESTDIR),$(INSTALLED_DIRS)); do \
	    rmdir --ignore-fail-on-non-empty "$$directory" 2>/dev/null || true; done

# Debian packages, in build/deb. The sources are what git knows: commit first what shall be in them.
.PHONY: deb
deb:
	@./bootstrap deb
	@systemd/make-deb "$(VERSION)" "$(CURDIR)/build/deb"

# Installs, upgrades and purges them in a clean chroot, and then under systemd. Needs root.
.PHONY: package-test
package-test: deb
	@tests/packages
	@tests/packages_systemd

.PHONY: clean distclean
clean:
	rm -rf build/asan build/obj build/pic build/examples build/fuzz build/tests build/check build/power build/bench \
	    build/scale.d build/kvstored build/kvctl build/libkvstore* build/unit build/integration build/fault build/scale \
	    build/sim build/sim_differential build/differential.d build/mutants
distclean:
	rm -rf build run

.PHONY: help
help:
	@echo 'make                 build/kvstored, build/kvctl, build/libkvstore.a and .so'
	@echo 'make run             set up, build, run the daemon in the foreground, data under ./run'
	@echo 'make check           set up, build, run every test, with sanitizers and without'
	@echo 'make unit            one layer of the tests, with sanitizers; VARIANT=release: without them'
	@echo 'make integration     the same; SUITE=kv TEST=name: one suite, one test, or those that match a pattern'
	@echo 'make fault           the tests in which networks and servers fail'
	@echo 'make sim             SEEDS (1000) runs of the simulation, each with its own faults; SEED=n TRACE=1: one run, printed'
	@echo 'make chaos           consistency checkers under random faults, for CHAOS_MINUTES (30)'
	@echo 'make over-tls        the suites with an external nats-server, over TLS 1.2 and 1.3'
	@echo 'make power           power failures at POWER_MOMENTS (1000) moments: no acknowledged write may be lost'
	@echo 'make bench           speed compared with other systems; ROWS=PATTERN: some rows; STRICT=1: fail if too slow'
	@echo 'make scale           cost of each operation as keys (SCALE_KEYS), buckets and sessions grow; AXES=...'
	@echo 'make soak            a million keys in memory: memory, load time, lookup time'
	@echo 'make fuzz            fuzz the protocol and its parsers for FUZZ_SECONDS (600)'
	@echo 'make lint            check layout, code, scripts, generated files and language'
	@echo 'make format          apply the layout to the C sources'
	@echo 'make settings        generate the sample configuration and its manual page from conf/settings.md'
	@echo 'make compile_commands.json   for clangd and other tools'
	@echo 'make install         install below PREFIX (/usr/local); DESTDIR: stage the files there'
	@echo 'make uninstall       remove what make install has installed; a changed configuration and the data stay'
	@echo 'make deb             Debian packages, in build/deb'
	@echo 'make package-test    install, upgrade and purge them in a clean system, as root'
	@echo 'make clean           remove the results of the build; distclean: also downloads and ./run'
	@echo
	@echo 'The build prints one line per file; V=1 prints the full commands, make -s prints nothing.'
