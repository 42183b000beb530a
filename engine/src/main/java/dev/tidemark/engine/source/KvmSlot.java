package dev.tidemark.engine.source;

import dev.tidemark.engine.log.RamBlockLog;
import java.util.Locale;

/**
 * A KVM memory slot that shows a part of a RAM block to the guest, as the VMM has set it up.
 *
 * @param slot the slot's number, the address space in its upper 16 bits
 * @param log the log of the block
 * @param firstPage where in the block the slot begins, in pages
 * @param pages its length in pages
 * @param guestAddress where the guest sees it, in bytes
 * @param flags the flags that the VMM gave it, without {@code KVM_MEM_LOG_DIRTY_PAGES}
 */
public record KvmSlot(
    int slot, RamBlockLog log, long firstPage, long pages, long guestAddress, int flags) {
  /** Checks that the slot lies in its block. */
  public KvmSlot {
    if (firstPage < 0 || pages < 1 || firstPage > log.block().pages() - pages) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "slot %d: pages %d+%d are not in block %s",
              slot,
              firstPage,
              pages,
              log.block()));
    }
  }
}
