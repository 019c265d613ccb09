# SPDX-License-Identifier: GPL-2.0
#
# `make help` lists what there is. What the kernel's build reads is Kbuild.

# Any prepared build directory of a kernel.
KDIR ?= /lib/modules/$(shell uname -r)/build
# A kernel of tests/kernels; and which tests to run: a part of their names.
KERNEL ?= $(shell awk '/^[^\#]/ { print $$1; exit }' tests/kernels)
TEST ?=

# What a build takes, and DKMS gets: nothing else of the checkout.
BUILD_FILES = $(filter-out %layout.rs %.mod.c,$(wildcard *.rs *.c *.h)) Kbuild Makefile dkms.conf
BUILD_SCRIPTS = scripts/prepare-tree scripts/lib.sh scripts/dkms-build
VERSION = $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
DKMS_SOURCE = $(DESTDIR)/usr/src/mp1-$(VERSION)
# Where `make install` puts the manual page.
PREFIX ?= /usr/local

.PHONY: all modules modules_install install uninstall deb test-package test-install clean demo shell test test-shell test-misuse test-tour test-all test-next soak soak-brief soak-arm64 bench bench-native rust-analyzer test-editor lint help

all: modules

# prepare-tree says where and with which compilers to build, or what is missing for that.
modules:
	@args=$$(scripts/prepare-tree '$(KDIR)') && $(MAKE) --no-print-directory -C $$args M='$(CURDIR)' modules

# Nothing can be signed where the kernel's key is not.
modules_install:
	@$(MAKE) --no-print-directory -C '$(KDIR)' M='$(CURDIR)' \
		$(if $(wildcard $(KDIR)/certs/signing_key.x509),,CONFIG_MODULE_SIG_ALL=) modules_install
	depmod $(if $(INSTALL_MOD_PATH),-b '$(INSTALL_MOD_PATH)') $$(cat '$(KDIR)/include/config/kernel.release')

# For all kernels of the machine, those to come as well: dkms gets a copy of the sources, owned by root.
install:
	@[ -n '$(DESTDIR)' ] || scripts/install --check
	install -d -m 755 '$(DKMS_SOURCE)/scripts' '$(DESTDIR)$(PREFIX)/share/man/man4'
	install -m 644 $(BUILD_FILES) '$(DKMS_SOURCE)'
	install -m 755 $(BUILD_SCRIPTS) '$(DKMS_SOURCE)/scripts'
	chmod a-x '$(DKMS_SOURCE)/scripts/lib.sh'
	install -m 644 docs/mp1.4 '$(DESTDIR)$(PREFIX)/share/man/man4'
	@[ -n '$(DESTDIR)' ] || scripts/install --register $(VERSION)

# All of it, and what `make modules_install` and builds left.
uninstall:
	@scripts/install --remove '$(PREFIX)'

deb:
	@scripts/build-deb

test-package:
	@scripts/test-package

test-install:
	@scripts/test-install

# As Kbuild's own, also where there are no headers any more.
clean:
	@rm -f *.ko *.mod *.mod.c *.o .*.o *.order *.symvers *.s .*.cmd .*.d *layout.rs skipped

demo:
	@scripts/demo $(KERNEL)

shell:
	@scripts/shell $(KERNEL)

test-shell:
	@scripts/test-shell $(KERNEL)

test:
	@scripts/test $(KERNEL) $(TEST)

test-all:
	@scripts/test-all $(TEST)

test-next:
	@scripts/test-all --next $(TEST)

test-misuse:
	@scripts/test-misuse $(KERNEL)

test-tour:
	@scripts/test-tour

soak:
	@scripts/soak

soak-brief:
	@scripts/soak brief

soak-arm64:
	@scripts/soak arm64

bench:
	@scripts/bench $(KERNEL)

bench-native:
	@scripts/bench-native

rust-analyzer:
	@scripts/rust-project $(KERNEL)

test-editor:
	@scripts/test-editor $(KERNEL)

lint:
	@scripts/lint

help:
	@echo 'On your own kernel:'
	@echo '  make                  build mp1.ko for the running kernel'
	@echo '  make KDIR=DIR         build it for the kernel of that build directory'
	@echo '  make modules_install  install it where modprobe finds it'
	@echo '  make install          give it to DKMS, which builds it for each kernel of the machine'
	@echo '  make uninstall        remove what modules_install or install has installed'
	@echo '  make deb              make the Debian package mp1-dkms'
	@echo '  make clean            remove what was built'
	@echo 'In a virtual machine, with a kernel of Debian:'
	@echo '  make demo             show a session with mp1'
	@echo '  make shell            give a shell beside mp1.ko, to play in'
	@echo '  make test             run the tests; TEST=NAME: those with NAME in their names'
	@echo '  make test-all         run them on every kernel of tests/kernels'
	@echo '  make test-next        run them on kernels that are still to come to Debian, if there are any'
	@echo '  make test-shell       use that shell through a pseudo-terminal'
	@echo '  make test-misuse      misuse the abstractions without unsafe code: the compiler or the kernel must refuse it'
	@echo '  make test-tour        run the commands of docs/tour.md, with the faults that they plant (5 minutes)'
	@echo '  make test-package     check the package and what DKMS does with it, as root (some minutes)'
	@echo '  make test-install     install, upgrade, sign and remove it on a whole Debian system'
	@echo '  make soak             attack the module on kernels that catch mistakes (two to three hours, and their compilation)'
	@echo '  make soak-brief       the part of it that takes minutes'
	@echo '  make soak-arm64       the attacks that depend on the processor, on arm64'
	@echo '  make bench            count what the module costs, beside a C twin (some minutes)'
	@echo '  make bench-native     compare the times of both on User Mode Linux (some minutes)'
	@echo '  KERNEL=NAME           of tests/kernels, for demo, shell, test, test-misuse and bench ($(KERNEL)); or debug, uml or uml-kasan'
	@echo 'On the sources:'
	@echo '  make rust-analyzer    write rust-project.json, from which an editor understands the module'
	@echo '  make test-editor      check that file with rust-analyzer (a minute)'
	@echo '  make lint             formatting and lints'
