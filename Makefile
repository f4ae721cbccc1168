# lunfs: iSCSI LUNs as files. `make demo` shows it, `make check` proves it.
#
#   make            build/lunfs
#   make demo       a scratch target, mounted; prints how to go on and how to stop
#   make check      installs what is missing, builds, runs all tests, those of the protocol's rules too
#   make lint       clang-format, clang-tidy, cppcheck
#   make check-asan, check-tsan, check-valgrind      the tests under the tools
#   make soak       faults for a long time: SOAK_SECONDS=1800
#   make fuzz       RUNS=1000000 inputs of a hostile target, and as many of lunfs.conf (clang, libFuzzer);
#                   TARGET=session or config: of one of them;
#                   LIBISCSI=DIR: with the libiscsi of this source folder, sanitized too
#   make bench      against raw libiscsi, QEMU's FUSE export and nbdfuse
#   make install DESTDIR= PREFIX=/usr/local          (mountsbindir=/sbin, or empty for no helpers there)
#
# BUILD= names the build folder, SANITIZE= a -fsanitize list, CC= the compiler.

CC       ?= cc
BUILD    ?= build
PREFIX   ?= /usr/local
DESTDIR  ?=
bindir   := $(PREFIX)/bin
mandir   := $(PREFIX)/share/man
docdir   := $(PREFIX)/share/doc/lunfs
# Where mount(8) and umount(8) look for helpers, whatever the PREFIX.
mountsbindir := /sbin
HELPERS  := $(if $(mountsbindir),$(addprefix $(DESTDIR)$(mountsbindir)/,mount.fuse.lunfs umount.fuse.lunfs))

VERSION  := 0.1.0
PACKAGES := fuse3 libiscsi glib-2.0 gio-2.0 gio-unix-2.0
WARN     := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
            -Wwrite-strings -Wundef -Wformat=2 -Wvla -Wimplicit-fallthrough
OPT      ?= -O2 -g
RUNS     ?= 1000000
LIBISCSI ?=
SANITIZE ?=
SANFLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=undefined -DLUNFS_CHECK)
FUZZFLAGS := $(if $(FUZZ),-fsanitize=fuzzer-no-link)
HARDEN   := $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2 -fstack-protector-strong)

# pkg-config runs once a make, after `deps` had its chance to install it.
PKG_CFLAGS  = $(eval PKG_CFLAGS := $$(shell pkg-config --cflags $(PACKAGES)))$(PKG_CFLAGS)
PKG_LIBS    = $(eval PKG_LIBS := $$(shell pkg-config --libs $(PACKAGES)))$(PKG_LIBS)
TEST_CFLAGS = $(eval TEST_CFLAGS := $$(shell pkg-config --cflags criterion))$(TEST_CFLAGS)
TEST_LIBS   = $(eval TEST_LIBS := $$(shell pkg-config --libs criterion))$(TEST_LIBS)

CPPFLAGS += -Iinclude -D_GNU_SOURCE -DFUSE_USE_VERSION=314 -DLUNFS_VERSION='"$(VERSION)"'
CSTD     := -std=c17 -fPIE -pthread
COMPILE   = $(CC) $(CSTD) $(OPT) $(WARN) $(SANFLAGS) $(HARDEN) $(CPPFLAGS) $(PKG_CFLAGS) $(CFLAGS) -MMD -MP
LINK      = $(CC) $(CSTD) $(OPT) $(SANFLAGS) -pie -Wl,-z,relro,-z,now $(LDFLAGS)

LIB_SRC     := $(filter-out src/cli/main.c,$(wildcard src/*/*.c))
LIB_OBJ     := $(LIB_SRC:%.c=$(BUILD)/%.o)
UNIT_OBJ    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/unit/*.c))
FUSE_OBJ    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/fuse/*.c))
CONFORM_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/conformance/*.c))
SUPPORT_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))
FUZZ_OBJ    := $(patsubst %.c,$(BUILD)/%.o,$(filter-out %/replay.c %/fuzz_config.c,$(wildcard tests/fuzz/*.c)))
ISCSI_OBJ   := $(if $(LIBISCSI),$(patsubst $(LIBISCSI)/lib/%.c,$(BUILD)/libiscsi/%.o,$(filter-out %/iser.c,$(wildcard $(LIBISCSI)/lib/*.c))))
TOOLS       := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/tools/*.c))
ALL_SRC     := $(wildcard src/*/*.c tests/*/*.c)
ALL_HDR     := $(wildcard include/lunfs/*.h src/*/*.h tests/*/*.h)

# Targets that build and then do something build with all processors, unless a -j was given.
PARALLEL  = $(if $(findstring -j,$(MAKEFLAGS)),,-j$(shell nproc))

# One line a file, unless V=1.
Q    := $(if $(V),,@)
say   = $(if $(V),,@printf '  %-5s %s\n' $(1) $(patsubst $(BUILD)/%,%,$@))

# bench's object is made on the way; nobody needs to see it go
.SECONDARY:

.PHONY: all demo demo-stop check check-asan check-tsan check-valgrind soak fuzz lint format bench install uninstall clean deps deps-dev deps-bench
all: $(BUILD)/lunfs
	@:

$(BUILD)/lunfs: $(BUILD)/src/cli/main.o $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS)

$(BUILD)/liblunfs.a: $(LIB_OBJ)
	$(call say,AR)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/tests/unit-tests: $(UNIT_OBJ) $(SUPPORT_OBJ) $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS) $(TEST_LIBS)

$(BUILD)/tests/fuse-tests: $(FUSE_OBJ) $(SUPPORT_OBJ) $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS) $(TEST_LIBS) -laio

$(BUILD)/tests/conformance-tests: $(CONFORM_OBJ) $(SUPPORT_OBJ) $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS) $(TEST_LIBS) -laio

$(BUILD)/tests/tools/%: $(BUILD)/tests/tools/%.o $(SUPPORT_OBJ) $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS) $(TEST_LIBS)

$(BUILD)/tests/bench/%: $(BUILD)/tests/bench/%.o
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS)

# clang only, FUZZ=1
$(BUILD)/tests/fuzz/session: $(FUZZ_OBJ) $(BUILD)/liblunfs.a $(ISCSI_OBJ)
	$(call say,LINK)
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $^ $(PKG_LIBS)

$(BUILD)/tests/fuzz/replay: $(FUZZ_OBJ) $(BUILD)/tests/fuzz/replay.o $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS)

$(BUILD)/tests/fuzz/config: $(BUILD)/tests/fuzz/fuzz_config.o $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $^ $(PKG_LIBS)

$(BUILD)/tests/fuzz/replay-config: $(BUILD)/tests/fuzz/fuzz_config.o $(BUILD)/tests/fuzz/replay.o $(BUILD)/liblunfs.a
	$(call say,LINK)
	$(Q)$(LINK) -o $@ $^ $(PKG_LIBS)

$(BUILD)/libiscsi/%.o: $(LIBISCSI)/lib/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu17 -fPIE -w $(OPT) $(SANFLAGS) $(FUZZFLAGS) -fno-sanitize=undefined -fsanitize-ignorelist=tests/fuzz/libiscsi.ignore \
	  -D_GNU_SOURCE -D_U_= -DHAVE_CONFIG_H -I$(LIBISCSI) -I$(LIBISCSI)/include -c -o $@ $<

$(BUILD)/tests/%.o: tests/%.c
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(COMPILE) -Itests $(TEST_CFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.c
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(COMPILE) $(FUZZFLAGS) -c -o $@ $<

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

tests := $(BUILD)/lunfs $(BUILD)/tests/unit-tests $(BUILD)/tests/fuse-tests $(BUILD)/tests/conformance-tests \
         $(BUILD)/tests/fuzz/replay $(BUILD)/tests/fuzz/replay-config $(TOOLS)

deps deps-dev deps-bench:
	@packaging/install-deps $@

demo: deps
	@$(MAKE) $(PARALLEL) --no-print-directory all
	@packaging/demo start $(BUILD)/lunfs

demo-stop:
	@packaging/demo stop $(BUILD)/lunfs

check: deps
	@$(MAKE) $(PARALLEL) --no-print-directory $(tests)
	@tests/run $(BUILD)

check-asan check-tsan check-valgrind: deps-dev
check-asan:
	@$(MAKE) $(PARALLEL) --no-print-directory BUILD=build/asan SANITIZE=address,undefined $(tests:$(BUILD)/%=build/asan/%)
	@tests/run build/asan asan
check-tsan:
	@$(MAKE) $(PARALLEL) --no-print-directory BUILD=$(BUILD)/tsan SANITIZE=thread $(BUILD)/tsan/lunfs
	@$(MAKE) $(PARALLEL) --no-print-directory $(tests)
	@tests/run $(BUILD) tsan
check-valgrind:
	@$(MAKE) $(PARALLEL) --no-print-directory $(tests)
	@tests/run $(BUILD) valgrind

# The test of check, again and again.
SOAK_SECONDS ?= 1800
soak: deps
	@$(MAKE) $(PARALLEL) --no-print-directory $(tests)
	@tests/soak $(BUILD) $(SOAK_SECONDS)

TARGET   ?= session config
fuzz: deps-dev
	@$(MAKE) $(PARALLEL) --no-print-directory BUILD=build/fuzz CC=clang SANITIZE=address,undefined FUZZ=1 $(TARGET:%=build/fuzz/tests/fuzz/%)
	@for target in $(TARGET); do TARGET=$$target tests/fuzz/run build/fuzz fuzz $(RUNS) || exit 1; done

lint: deps-dev
	@echo '  LINT  clang-format'
	@clang-format --dry-run -Werror $(ALL_SRC) $(ALL_HDR)
	@echo '  LINT  gcc and clang, warnings are errors'
	@$(MAKE) $(PARALLEL) --no-print-directory -s BUILD=build/lint-gcc CC=gcc CFLAGS=-Werror $(tests:$(BUILD)/%=build/lint-gcc/%) >/dev/null
	@# clang's warnings do not wait for the optimizer
	@$(MAKE) $(PARALLEL) --no-print-directory -s BUILD=build/lint-clang CC=clang OPT=-O0 HARDEN= CFLAGS=-Werror $(tests:$(BUILD)/%=build/lint-clang/%) >/dev/null
	@echo '  LINT  cppcheck'
	@cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -Iinclude -Itests -DFUSE_USE_VERSION=314 \
	  --enable=warning,performance,portability --suppress=missingIncludeSystem \
	  --suppress=varFuncNullUB --suppress=unknownMacro --suppress=preprocessorErrorDirective src
	@echo '  LINT  clang-tidy'
	@printf '%s\n' $(LIB_SRC) src/cli/main.c | xargs -P $$(nproc) -n 1 sh -c 'clang-tidy --quiet "$$@" 2>/dev/null -- \
	  $(CSTD) -Iinclude -D_GNU_SOURCE -DFUSE_USE_VERSION=314 -DLUNFS_VERSION="\"x\"" $(PKG_CFLAGS)' clang-tidy

format:
	@clang-format -i $(ALL_SRC) $(ALL_HDR)

bench: deps-bench
	@$(MAKE) $(PARALLEL) --no-print-directory all $(BUILD)/tests/bench/rawload $(BUILD)/tests/tools/faultproxy
	@tests/bench/bench $(BUILD)

install: all
	install -D -m 755 $(BUILD)/lunfs $(DESTDIR)$(bindir)/lunfs
	install -D -m 644 packaging/lunfs.1 $(DESTDIR)$(mandir)/man1/lunfs.1
	install -D -m 644 packaging/lunfs.conf.5 $(DESTDIR)$(mandir)/man5/lunfs.conf.5
	install -D -m 644 README.md $(DESTDIR)$(docdir)/README.md
	install -D -m 644 LICENSE $(DESTDIR)$(docdir)/LICENSE
	install -D -m 644 packaging/lunfs.conf.sample $(DESTDIR)$(docdir)/lunfs.conf.sample
	install -D -m 644 packaging/status.schema.json $(DESTDIR)$(docdir)/status.schema.json
	$(if $(HELPERS),install -d $(DESTDIR)$(mountsbindir))
	$(foreach helper,$(HELPERS),ln -sf $(bindir)/lunfs $(helper) &&) :

uninstall:
	rm -f $(DESTDIR)$(bindir)/lunfs $(HELPERS)
	rm -f $(DESTDIR)$(mandir)/man1/lunfs.1 $(DESTDIR)$(mandir)/man5/lunfs.conf.5
	rm -rf $(DESTDIR)$(docdir)

clean:
	rm -rf build
