package dev.tidemark.bench.duel;

import dev.tidemark.bench.guest.BootImage;
import dev.tidemark.bench.qemu.QemuProcess;

/**
 * How a guest of {@link BootImage} has got on until its last batch.
 *
 * @param ticks its clock then
 * @param pages that it has checked and written
 * @param generation 1 while it comes through its memory for the first time
 * @param badPage address of a page that was wrong; 0 if none was
 */
record GuestStatus(long ticks, long pages, long generation, long badPage) {
  /**
   * Reads it.
   *
   * @throws IllegalStateException if the guest has found a page wrong
   */
  static GuestStatus of(QemuProcess qemu) {
    long[] words = qemu.read(BootImage.STATUS, BootImage.WORDS);
    GuestStatus status =
        new GuestStatus(
            words[BootImage.TICKS],
            words[BootImage.PAGES],
            words[BootImage.GENERATION],
            words[BootImage.BAD_PAGE]);
    if (status.badPage != 0) {
      throw new IllegalStateException("QEMU's guest found a page wrong: " + status);
    }
    return status;
  }

  /** Pages a second since an earlier time; NaN if no batch was done since. */
  double pagesPerSecondSince(GuestStatus earlier, double ticksPerSecond) {
    long ran = ticks - earlier.ticks;
    return ran == 0 ? Double.NaN : (pages - earlier.pages) * ticksPerSecond / ran;
  }
}
