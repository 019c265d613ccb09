// SPDX-License-Identifier: GPL-2.0
/*
 * A module that does nothing: what the kernel keeps for it, it keeps for every
 * module.
 */
#include <linux/module.h>

static int __init empty_init(void)
{
	return 0;
}

static void __exit empty_exit(void)
{
}

module_init(empty_init);
module_exit(empty_exit);

static unsigned int interval_ms;
module_param(interval_ms, uint, 0444);
MODULE_PARM_DESC(interval_ms, "does nothing");

MODULE_DESCRIPTION("nothing, for comparison only");
MODULE_LICENSE("GPL");
