/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Read right after the configuration when clang compiles the twin against a tree that was
 * configured for gcc: takes back what only gcc can do.
 */
#undef CONFIG_CC_HAS_NAMED_AS
#undef CONFIG_USE_X86_SEG_SUPPORT
