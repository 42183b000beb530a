package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.MappedRegion;
import dev.tidemark.ffm.Pages;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Locale;

/** Finds and names memory of a block that cannot be read or written. */
final class BlockMemory {
  private static final String SIGBUS_ADVICE =
      ": its file was truncated or cannot grow, the hugetlb pool is empty, or the hardware reported"
          + " the page as damaged";

  private BlockMemory() {}

  /**
   * Checks that all of a block may be accessed. The JVM turns no access to memory that is not
   * mapped, or not so, into an exception.
   *
   * @param write whether stores must be allowed, too
   * @throws StreamException if some of it may not
   */
  static void check(RamBlock block, boolean write) {
    long start = block.address();
    long end = start + block.bytes();
    long at = start;
    String why = "no memory is mapped there";
    List<MappedRegion> regions = MappedRegion.in(start, end);
    for (MappedRegion region : regions) {
      if (region.start() > at) {
        break;
      }
      if (!region.readable() || write && !region.writable()) {
        why = "its mapping forbids it";
        break;
      }
      at = region.end();
    }
    if (at < end) {
      throw fault(block, Math.max(at, start), write ? "written" : "read", ": " + why, null);
    }
  }

  /**
   * Whether an error is HotSpot's for a SIGBUS, which comes a little after the access; where the
   * access was can only be found by another.
   */
  static boolean isFault(InternalError error) {
    String message = error.getMessage();
    return message != null && message.contains("unsafe memory access");
  }

  /**
   * Names the first page that cannot be read.
   *
   * @param first the first page that was to be read
   * @param count how many
   */
  static StreamException unreadable(RamBlock block, long first, long count, InternalError error) {
    MemorySegment memory = block.memory();
    long[] content = new long[(int) Pages.SIZE / Long.BYTES];
    long found = first;
    for (long page = first; page < first + count; page++) {
      if (!isReadable(memory, page << Pages.SHIFT, content)) {
        found = page;
        break;
      }
    }
    return fault(block, block.address() + (found << Pages.SHIFT), "read", SIGBUS_ADVICE, error);
  }

  /** By a copy, whose error comes before it returns; that of a load comes some time after it. */
  private static boolean isReadable(MemorySegment memory, long offset, long[] content) {
    try {
      MemorySegment.copy(memory, JAVA_LONG, offset, content, 0, content.length);
      return true;
    } catch (InternalError e) {
      return false;
    }
  }

  /** Names the page that could not be written. */
  static StreamException unwritable(RamBlock block, long offset, InternalError error) {
    return fault(block, block.address() + offset, "written", SIGBUS_ADVICE, error);
  }

  /**
   * Names the first page of a call that the kernel could not make; which of the call's pages it
   * could not read it does not say.
   *
   * @param address where the call was to begin
   */
  static StreamException unreadable(RamBlock[] blocks, long address, Exception error) {
    for (RamBlock block : blocks) {
      if (address - block.address() >= 0 && address - block.address() < block.bytes()) {
        return fault(
            block, address, "read", " (or a later one of the same call)" + SIGBUS_ADVICE, error);
      }
    }
    return new StreamException("memory outside of all blocks cannot be read", error);
  }

  private static StreamException fault(
      RamBlock block, long address, String access, String why, Throwable cause) {
    return new StreamException(
        StreamFormat.printable(
            String.format(
                Locale.ROOT,
                "block %s, page %d of %d cannot be %s%s",
                block.name(),
                address - block.address() >> Pages.SHIFT,
                block.pages(),
                access,
                why)),
        cause);
  }
}
