package dev.tidemark.engine.source.dma;

import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.Pages;
import java.util.Arrays;
import java.util.Locale;
import java.util.concurrent.locks.ReentrantLock;

/**
 * The ledger of what is mapped for devices in one IO address space: IOVA range to RAM block and
 * offset, writable or not. The kernel stops silently at a hole, so only this ledger can say what to
 * ask it for.
 *
 * <p>A mapping here is a mapping there: one call that maps, one entry. Entries are never joined or
 * split. IOVAs are unsigned; they and all lengths are multiples of {@link Pages#SIZE}.
 *
 * <p>Threading: any thread; each method takes the ledger's lock. Whoever iterates, or makes the
 * kernel's mappings agree with the ledger, holds it with {@link #lock()} for as long as that takes:
 * a sync too, so that no mapping goes away with its bits. It may be held when the fill plane of a
 * log is taken, never the other way round.
 *
 * <p>Footprint: 24 to 64 bytes a mapping. Cost: two binary searches and the move of at most 4 KiB
 * for a change, one binary search for a lookup; no allocation except of a new chunk once in 85
 * mappings at most.
 */
public final class DmaMap {
  /** Mappings in a chunk: few enough to move on each change, many enough to keep the top small. */
  static final int CAPACITY = 170;

  private static final int WORDS = 3;
  private static final int SPARSE = CAPACITY / 4;
  private static final int JOINED = CAPACITY * 3 / 4;
  private static final int LOG_SHIFT = 48;
  private static final long PAGE_MASK = (1L << LOG_SHIFT) - 1;
  private static final int MAX_LOGS = 1 << 15;

  private final ReentrantLock lock = new ReentrantLock();

  // An entry is three words: first IOVA page; pages << 1 | writable; log << 48 | page of the block.
  long[][] chunks = new long[8][];
  private long[] firsts = new long[8];
  int[] counts = new int[8];
  int chunkCount;

  private RamBlockLog[] logs = new RamBlockLog[0];
  private long mappings;
  private long pages;
  private long writablePages;
  private long changes;

  // Where find() has left off: the first entry that ends behind the page it was asked for.
  private int foundChunk;
  private int foundIndex;

  /** An empty ledger. */
  public DmaMap() {}

  /** Takes the ledger's lock, waiting for whoever has it. May be taken again by its holder. */
  public void lock() {
    lock.lock();
  }

  /** Gives the ledger's lock back. */
  public void unlock() {
    lock.unlock();
  }

  void checkLocked() {
    if (!lock.isHeldByCurrentThread()) {
      throw new IllegalMonitorStateException("hold the ledger's lock while iterating");
    }
  }

  static long pageOf(long iova, long bytes) {
    if (((iova | bytes) & Pages.SIZE - 1) != 0) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "IOVA 0x%x, 0x%x bytes: not whole pages of %d bytes",
              iova,
              bytes,
              Pages.SIZE));
    }
    // The whole space has 2^64 bytes, one too many for a long: ranges end before its last page.
    if (bytes == 0 || Long.compareUnsigned(iova, iova + bytes) >= 0) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "IOVA 0x%x, 0x%x bytes: nothing, or past the end of the space",
              iova,
              bytes));
    }
    return iova >>> Pages.SHIFT;
  }

  /**
   * Enters a mapping.
   *
   * @param iova its first address
   * @param bytes its length
   * @param log the log of the block that it shows
   * @param page where in the block it begins, in pages
   * @param writable whether devices may write there
   * @throws IllegalStateException if a part of the range is mapped already; the kernel says {@code
   *     EEXIST} then
   * @throws IllegalArgumentException if the range is not made of whole pages
   * @throws IndexOutOfBoundsException if the block has no such pages
   */
  public void map(long iova, long bytes, RamBlockLog log, long page, boolean writable) {
    long first = pageOf(iova, bytes);
    long count = bytes >>> Pages.SHIFT;
    long blockPages = log.block().pages();
    if (page < 0 || page > blockPages - count) {
      throw new IndexOutOfBoundsException(
          String.format(
              Locale.ROOT,
              "pages %d+%d of block %s, which has %d",
              page,
              count,
              log.block().name(),
              blockPages));
    }
    lock.lock();
    try {
      find(first);
      if (foundChunk < chunkCount) {
        long next = chunks[foundChunk][foundIndex * WORDS];
        if (next < first + count) {
          throw new IllegalStateException(
              String.format(
                  Locale.ROOT,
                  "IOVA 0x%x, 0x%x bytes: something is mapped at 0x%x already: unmap it first",
                  iova,
                  bytes,
                  next << Pages.SHIFT));
        }
      }
      long word = (long) indexOf(log) << LOG_SHIFT | page;
      insert(first, count << 1 | (writable ? 1 : 0), word);
      mappings++;
      pages += count;
      writablePages += writable ? count : 0;
      changes++;
    } finally {
      lock.unlock();
    }
  }

  private int indexOf(RamBlockLog log) {
    for (int i = 0; i < logs.length; i++) {
      if (logs[i] == log) {
        return i;
      }
    }
    if (logs.length == MAX_LOGS) {
      throw new IllegalStateException("no more than " + MAX_LOGS + " blocks in one ledger");
    }
    logs = Arrays.copyOf(logs, logs.length + 1);
    logs[logs.length - 1] = log;
    return logs.length - 1;
  }

  /** Finds the first entry that ends behind a page; chunkCount if there is none. */
  private void find(long page) {
    int low = 0;
    int high = chunkCount - 1;
    while (low < high) {
      int middle = low + high + 1 >>> 1;
      if (firsts[middle] <= page) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    foundChunk = low;
    foundIndex = 0;
    if (chunkCount == 0) {
      return;
    }
    foundIndex = search(chunks[low], 0, counts[low], page);
    if (foundIndex == counts[low]) {
      foundChunk++;
      foundIndex = 0;
    }
  }

  /** The first entry of a chunk, from one on, that ends behind a page. */
  static int search(long[] chunk, int from, int count, long page) {
    int low = from;
    int high = count;
    while (low < high) {
      int middle = low + high >>> 1;
      int at = middle * WORDS;
      if (chunk[at] + (chunk[at + 1] >>> 1) <= page) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  private void insert(long first, long length, long target) {
    int c = foundChunk;
    int i = foundIndex;
    if (i == 0 && c > 0 && (c == chunkCount || counts[c - 1] < CAPACITY)) {
      // Behind the end of the chunk before is as good, and lets ascending addresses fill chunks up.
      c--;
      i = counts[c];
    }
    if (chunkCount == 0) {
      openChunk(0);
    } else if (counts[c] == CAPACITY) {
      openChunk(c + 1);
      int keep = i == CAPACITY ? CAPACITY : CAPACITY / 2;
      int moved = CAPACITY - keep;
      System.arraycopy(chunks[c], keep * WORDS, chunks[c + 1], 0, moved * WORDS);
      counts[c] = keep;
      counts[c + 1] = moved;
      firsts[c + 1] = chunks[c + 1][0];
      if (i > keep || moved == 0) {
        i -= keep;
        c++;
      }
    }
    long[] chunk = chunks[c];
    int at = i * WORDS;
    System.arraycopy(chunk, at, chunk, at + WORDS, (counts[c] - i) * WORDS);
    chunk[at] = first;
    chunk[at + 1] = length;
    chunk[at + 2] = target;
    counts[c]++;
    firsts[c] = chunk[0];
  }

  private void openChunk(int c) {
    if (chunkCount == chunks.length) {
      int room = chunkCount + (chunkCount >>> 1);
      chunks = Arrays.copyOf(chunks, room);
      firsts = Arrays.copyOf(firsts, room);
      counts = Arrays.copyOf(counts, room);
    }
    int tail = chunkCount - c;
    System.arraycopy(chunks, c, chunks, c + 1, tail);
    System.arraycopy(firsts, c, firsts, c + 1, tail);
    System.arraycopy(counts, c, counts, c + 1, tail);
    chunks[c] = new long[CAPACITY * WORDS];
    counts[c] = 0;
    chunkCount++;
  }

  private void closeChunks(int from, int end) {
    int tail = chunkCount - end;
    System.arraycopy(chunks, end, chunks, from, tail);
    System.arraycopy(firsts, end, firsts, from, tail);
    System.arraycopy(counts, end, counts, from, tail);
    Arrays.fill(chunks, from + tail, chunkCount, null);
    chunkCount = from + tail;
  }

  /**
   * Removes every mapping of a range.
   *
   * @param iova the first address
   * @param bytes how many; holes in the range do not matter
   * @return how many bytes were mapped there
   * @throws IllegalStateException if a mapping is only partly in the range; nothing is removed
   *     then, as the kernel does not split mappings either ({@code ENOENT})
   */
  public long unmap(long iova, long bytes) {
    long first = pageOf(iova, bytes);
    long end = first + (bytes >>> Pages.SHIFT);
    lock.lock();
    try {
      checkWhole(first, end);
      return remove(first, end) << Pages.SHIFT;
    } finally {
      lock.unlock();
    }
  }

  /**
   * Checks that a range splits no mapping.
   *
   * @throws IllegalStateException if it does, naming the mapping
   */
  void checkWhole(long first, long end) {
    checkEdge(first);
    checkEdge(end);
  }

  private void checkEdge(long edge) {
    find(edge);
    if (foundChunk < chunkCount) {
      int at = foundIndex * WORDS;
      long start = chunks[foundChunk][at];
      if (start < edge) {
        throw new IllegalStateException(
            String.format(
                Locale.ROOT,
                "the mapping at IOVA 0x%x, 0x%x bytes, is only partly in the range that ends or begins at 0x%x: unmap whole mappings",
                start << Pages.SHIFT,
                chunks[foundChunk][at + 1] >>> 1 << Pages.SHIFT,
                edge << Pages.SHIFT));
      }
    }
  }

  private long remove(long first, long end) {
    find(first);
    int c = foundChunk;
    int i = foundIndex;
    int emptyFrom = -1;
    int emptyEnd = -1;
    long removedPages = 0;
    int touched = c;
    while (c < chunkCount) {
      long[] chunk = chunks[c];
      int j = i;
      while (j < counts[c] && chunk[j * WORDS] < end) {
        long length = chunk[j * WORDS + 1];
        removedPages += length >>> 1;
        writablePages -= (length & 1) == 1 ? length >>> 1 : 0;
        mappings--;
        j++;
      }
      if (j == i) {
        break;
      }
      int left = counts[c] - j;
      System.arraycopy(chunk, j * WORDS, chunk, i * WORDS, left * WORDS);
      counts[c] = i + left;
      if (counts[c] == 0) {
        emptyFrom = emptyFrom < 0 ? c : emptyFrom;
        emptyEnd = c + 1;
      } else {
        firsts[c] = chunk[0];
      }
      if (left > 0) {
        break;
      }
      c++;
      i = 0;
    }
    if (emptyEnd > 0) {
      closeChunks(emptyFrom, emptyEnd);
    }
    join(touched);
    join(touched - 1);
    if (removedPages > 0) {
      pages -= removedPages;
      changes++;
    }
    return removedPages;
  }

  /** Joins a chunk with the next one if both together still have room. */
  private void join(int c) {
    if (c < 0 || c + 1 >= chunkCount) {
      return;
    }
    int sum = counts[c] + counts[c + 1];
    if (Math.min(counts[c], counts[c + 1]) < SPARSE && sum <= JOINED) {
      System.arraycopy(chunks[c + 1], 0, chunks[c], counts[c] * WORDS, counts[c + 1] * WORDS);
      counts[c] = sum;
      closeChunks(c + 1, c + 2);
    }
  }

  /** Removes every mapping. */
  public void clear() {
    lock.lock();
    try {
      closeChunks(0, chunkCount);
      mappings = 0;
      pages = 0;
      writablePages = 0;
      changes++;
    } finally {
      lock.unlock();
    }
  }

  /** How many mappings there are. */
  public long mappings() {
    lock.lock();
    try {
      return mappings;
    } finally {
      lock.unlock();
    }
  }

  /** How many pages are mapped, each as often as it is. */
  public long pages() {
    lock.lock();
    try {
      return pages;
    } finally {
      lock.unlock();
    }
  }

  /** How many pages are mapped so that devices may write them, each as often as it is. */
  public long writablePages() {
    lock.lock();
    try {
      return writablePages;
    } finally {
      lock.unlock();
    }
  }

  /** Makes every page dirty that devices may write, by marks; any thread. */
  public void markWritable() {
    lock.lock();
    try {
      for (int c = 0; c < chunkCount; c++) {
        for (int i = 0; i < counts[c]; i++) {
          long[] chunk = chunks[c];
          long length = chunk[i * WORDS + 1];
          if ((length & 1) == 1) {
            logOf(chunk, i).mark(blockPage(chunk, i), length >>> 1);
          }
        }
      }
    } finally {
      lock.unlock();
    }
  }

  /** What the ledger takes on the Java heap, in bytes, logs not included. */
  public long footprint() {
    lock.lock();
    try {
      long arrayHeader = 16;
      return (long) chunkCount * (CAPACITY * WORDS * 8 + arrayHeader)
          + (long) chunks.length * (8 + 8 + 4)
          + (long) logs.length * 8
          + 4 * arrayHeader;
    } finally {
      lock.unlock();
    }
  }

  // What cursors need, under the lock.

  long changes() {
    return changes;
  }

  int foundChunk() {
    return foundChunk;
  }

  int foundIndex() {
    return foundIndex;
  }

  void locate(long page) {
    find(page);
  }

  static long firstPage(long[] chunk, int i) {
    return chunk[i * WORDS];
  }

  static long pageCount(long[] chunk, int i) {
    return chunk[i * WORDS + 1] >>> 1;
  }

  static boolean isWritable(long[] chunk, int i) {
    return (chunk[i * WORDS + 1] & 1) == 1;
  }

  static long blockPage(long[] chunk, int i) {
    return chunk[i * WORDS + 2] & PAGE_MASK;
  }

  RamBlockLog logOf(long[] chunk, int i) {
    return logs[(int) (chunk[i * WORDS + 2] >>> LOG_SHIFT)];
  }
}
