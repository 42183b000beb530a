package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Pages;
import java.util.Arrays;
import java.util.SplittableRandom;

/**
 * A guest that drives a device through the IOMMU that its VMM shows it: a ring of receive buffers
 * of a page each, all mapped and unmapped through the VMM. The device writes where the guest's
 * mappings lead, and the guest remembers the last value of each page.
 *
 * <p>Threading: one thread, the guest's; its memory of values is for whoever joined it.
 */
final class VIommuGuest {
  /** When the guest's kernel gives a mapping back. */
  enum Mode {
    /** With each buffer that the device is done with ({@code iommu.strict=1}). */
    STRICT,

    /** Many together; until then the device could still write there ({@code iommu.strict=0}). */
    LAZY
  }

  /** The device's side: writes 8 bytes by DMA. */
  interface Dma {
    void write(long iova, long value);
  }

  private static final int LAZY_BATCH = 64;

  private final DmaSource source;
  private final RamBlockLog log;
  private final Mode mode;
  private final Dma dma;
  private final long translated;
  private final long identity;
  private final SplittableRandom random;

  /** By page of the block: what the device wrote there last, 0 for nothing. */
  private final long[] written;

  // The ring: slots of IOVA, the oldest at next.
  private final int[] slots;
  private int next;

  /** By slot: the page that it leads to, as long as it is mapped. */
  private final int[] pages;

  /** Slots that nothing is mapped to, used last in first out, as a kernel's caches do. */
  private final int[] free;

  private int freeCount;
  private final int[] unmapLater = new int[LAZY_BATCH];
  private int unmapLaterCount;

  private boolean translates;
  private long value;
  private long pairs;
  private long switches;
  private long writes;

  /**
   * @param source who maps for the device
   * @param log of the guest's only block
   * @param ring how many buffers the device has at a time
   * @param translated the first page of IOVA of mapped buffers
   * @param identity the first page of IOVA where all memory is without translation
   */
  VIommuGuest(
      DmaSource source,
      RamBlockLog log,
      Mode mode,
      Dma dma,
      int ring,
      long translated,
      long identity,
      long seed) {
    this.source = source;
    this.log = log;
    this.mode = mode;
    this.dma = dma;
    this.translated = translated;
    this.identity = identity;
    random = new SplittableRandom(seed);
    written = new long[(int) log.block().pages()];
    slots = new int[ring];
    free = new int[ring + LAZY_BATCH];
    pages = new int[free.length];
  }

  /** Boots: every buffer of the ring is mapped. */
  void boot() {
    fillRing();
  }

  private void fillRing() {
    freeCount = 0;
    unmapLaterCount = 0;
    for (int slot = 0; slot < free.length; slot++) {
      free[freeCount++] = slot;
    }
    for (int i = 0; i < slots.length; i++) {
      post(i);
    }
    translates = true;
  }

  private long iova(int slot) {
    return translated + slot << Pages.SHIFT;
  }

  private void post(int i) {
    int slot = free[--freeCount];
    slots[i] = slot;
    pages[slot] = random.nextInt(written.length);
    source.map(iova(slot), Pages.SIZE, log, pages[slot], true);
  }

  private void write(long iova, int page) {
    dma.write(iova, ++value);
    written[page] = value;
    writes++;
  }

  private void write(int slot) {
    write(iova(slot), pages[slot]);
  }

  /**
   * The device fills the oldest buffer, and sometimes another, also one that the guest has taken
   * back and not unmapped yet; the guest posts a new one.
   */
  void transfer() {
    if (random.nextInt(8) != 0) {
      write(slots[next]);
    }
    if (random.nextInt(8) == 0) {
      write(slots[random.nextInt(slots.length)]);
    }
    if (unmapLaterCount > 0 && random.nextInt(8) == 0) {
      write(unmapLater[random.nextInt(unmapLaterCount)]);
    }
    release(slots[next]);
    post(next);
    next = (next + 1) % slots.length;
  }

  private void release(int slot) {
    if (mode == Mode.STRICT) {
      source.unmap(iova(slot), Pages.SIZE);
      free[freeCount++] = slot;
      pairs++;
      return;
    }
    unmapLater[unmapLaterCount++] = slot;
    if (unmapLaterCount == LAZY_BATCH) {
      flush();
    }
  }

  private void flush() {
    Arrays.sort(unmapLater);
    for (int i = 0; i < LAZY_BATCH; ) {
      int first = i++;
      while (i < LAZY_BATCH && unmapLater[i] == unmapLater[i - 1] + 1) {
        i++;
      }
      source.unmap(iova(unmapLater[first]), (i - first) * Pages.SIZE);
    }
    for (int i = 0; i < LAZY_BATCH; i++) {
      free[freeCount++] = unmapLater[i];
    }
    pairs += LAZY_BATCH;
    unmapLaterCount = 0;
  }

  /** The guest switches its device to another domain: all memory untranslated, or the ring. */
  void switchDomain() {
    pairs += source.unmapAll() / (translates ? Pages.SIZE : log.block().bytes());
    switches++;
    if (translates) {
      translates = false;
      source.map(identity << Pages.SHIFT, log.block().bytes(), log, 0, true);
    } else {
      fillRing();
    }
  }

  /** The device writes a page somewhere, untranslated. */
  void writeUntranslated() {
    int page = random.nextInt(written.length);
    write(identity + page << Pages.SHIFT, page);
  }

  /** What the device wrote to a page last. */
  long lastWritten(int page) {
    return written[page];
  }

  /** Mappings that were made and removed again. */
  long pairs() {
    return pairs;
  }

  long switches() {
    return switches;
  }

  long writes() {
    return writes;
  }
}
