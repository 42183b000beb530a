/**
 * Tracking of this process's own writes: {@code userfaultfd(2)} write-protects pages and lets the
 * kernel resolve the faults by itself, {@code PAGEMAP_SCAN} reports which pages were written since
 * and protects them again. Needs no privilege and no hardware, but Linux 6.7.
 *
 * <p>What it cannot see: device DMA, writes by another process or through another mapping of shared
 * memory, a hole punched into a file. Both interfaces look at this process's page tables only.
 */
package dev.tidemark.ffm.userfaultfd;
