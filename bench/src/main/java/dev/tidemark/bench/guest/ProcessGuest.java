package dev.tidemark.bench.guest;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Memfd;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.util.Locale;

/**
 * A self-checking guest that is a thread of this process, for hosts without KVM. Its memory is a
 * memfd, written through the one mapping that {@link #ram()} is, or by a device.
 */
public final class ProcessGuest extends GuestBase {
  private static final int KIND = 2;

  /** The first of the pages that the guest itself never looks at. */
  public static final long FIRST_SPARE_PAGE = GuestMemory.PROGRAM >> GuestMemory.PAGE_SHIFT;

  /** How many there are. */
  public static final long SPARE_PAGES =
      (GuestMemory.CONTROL >> GuestMemory.PAGE_SHIFT) - FIRST_SPARE_PAGE;

  /** What a device is to write, on the guest's thread only. */
  private final MemorySegment buffer = Arena.ofAuto().allocate(GuestMemory.PAGE, Long.BYTES);

  private volatile PageDevice device;
  private long page = GuestMemory.FIRST_TEST_PAGE;
  private long generation = 1;
  private long batchLeft = BATCH;
  private long seenHead;

  private final Memfd memfd;

  private ProcessGuest(GuestMemory map, Memfd memfd, Mapping memory, long rate) {
    super(map, memory, RamBlock.ofFile("ram", memory.segment(), memfd.fd(), 0), KIND, rate);
    this.memfd = memfd;
  }

  /**
   * Creates a guest with zero memory.
   *
   * @param ramBytes bytes of RAM, whole pages of 4 KiB, from 4 MiB and 64 pages to 256 GiB
   * @param pagesPerSecond see {@link #setRate}
   * @throws dev.tidemark.ffm.LinuxException if there is not enough memory
   */
  public static ProcessGuest create(long ramBytes, long pagesPerSecond) {
    GuestMemory map = new GuestMemory(ramBytes);
    Memfd memfd = Memfd.create("tidemark-guest", ramBytes);
    Mapping memory;
    try {
      memory = memfd.map();
    } catch (RuntimeException e) {
      memfd.close();
      throw e;
    }
    ProcessGuest guest = new ProcessGuest(map, memfd, memory, pagesPerSecond);
    guest.launch("guest thread");
    return guest;
  }

  /**
   * Has a device write the test pages from now on; the guest's thread only reads them. The one page
   * that it still writes itself is reported as the VMM's writes are.
   */
  public void writeBy(PageDevice device) {
    this.device = device;
  }

  @Override
  void kick() {}

  @Override
  void runGuest() {
    if (stop) {
      return;
    }
    MemorySegment memory = ram.memory();
    long end = map.bytes >> GuestMemory.PAGE_SHIFT;
    ran(System.nanoTime());
    while (!stop) {
      if (!PageFormat.matches(memory, page, generation - 1)) {
        fail(PageFormat.problem(memory, page, generation - 1));
        break;
      }
      write(memory);
      page += map.stride;
      if (page >= end) {
        page -= map.testPages;
      }
      if (page == GuestMemory.FIRST_TEST_PAGE) {
        generation++;
      }
      if (--batchLeft > 0) {
        continue;
      }
      batchLeft = BATCH;
      long head = Mailbox.check(memory, seenHead);
      if (head < 0) {
        fail(Mailbox.problem(memory, seenHead));
        break;
      }
      seenHead = head;
      if (device != null) {
        wrote(Mailbox.blockSeenPage());
      }
      // The thread writes no memory while it waits for its pace, so this is the last moment.
      left(System.nanoTime());
      tick(BATCH);
    }
    left(System.nanoTime());
  }

  private void write(MemorySegment memory) {
    PageDevice writer = device;
    if (writer == null) {
      PageFormat.write(memory, page, generation);
      return;
    }
    long at = page << GuestMemory.PAGE_SHIFT;
    MemorySegment.copy(memory, at, buffer, 0, GuestMemory.PAGE);
    PageFormat.write(buffer, 0, page, generation);
    writer.write(at, buffer);
  }

  @Override
  void prepare() {}

  @Override
  int stateBytes() {
    return 4 * Long.BYTES;
  }

  @Override
  void save(ByteBuffer state) {
    state.putLong(page).putLong(generation).putLong(batchLeft).putLong(seenHead);
  }

  @Override
  void load(ByteBuffer state) {
    long newPage = state.getLong();
    long newGeneration = state.getLong();
    long newBatchLeft = state.getLong();
    long newSeenHead = state.getLong();
    if (newPage < GuestMemory.FIRST_TEST_PAGE
        || newPage >= map.bytes >> GuestMemory.PAGE_SHIFT
        || newGeneration < 1
        || newBatchLeft < 1
        || newBatchLeft > BATCH
        || newSeenHead < 0) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "guest state with page %d, generation %d, %d left of a batch, message %d",
              newPage,
              newGeneration,
              newBatchLeft,
              newSeenHead));
    }
    page = newPage;
    generation = newGeneration;
    batchLeft = newBatchLeft;
    seenHead = newSeenHead;
  }

  @Override
  void free() {
    memfd.close();
  }
}
