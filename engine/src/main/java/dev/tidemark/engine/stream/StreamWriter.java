package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.FileHoles;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;

/**
 * Writes QEMU's migration stream, version 3: RAM in rounds, other iterable sections between them,
 * then full sections. The order of calls is the order of the stream:
 *
 * <pre>
 * begin, [openReturnPath], startRam, start..., { beginRound, pages..., endRound, part... },
 * endRam, end..., full..., [ping], eof, [description]
 * </pre>
 *
 * <p>Pages go to the socket straight from guest memory, up to 512 in a call; a page may change
 * while it is written, if its bit is taken from the log before and the page comes again.
 *
 * <p>Small elements wait for the next page batch or for {@link #flush()}, which {@code ping},
 * {@code endRound}, {@code endRam} and {@code eof} include.
 *
 * <p>Threading: one thread; the counters any. Cost: no allocation for pages, rounds and pings.
 * Errors: every method that writes throws {@link LinuxException} once the other side is gone; the
 * stream is then of no further use. The same goes for a {@link StreamException}, which names a page
 * that cannot be read.
 *
 * <p>Footprint: 80 KiB off-heap from {@link #begin} to {@link #close()}.
 */
public final class StreamWriter implements AutoCloseable {
  private static final int RAM_ID = 2;

  /** Bytes of a line of the cache. */
  private static final int LINE = 64;

  private final GatherOutput out;
  private final ReadAhead readAhead = new ReadAhead(System::nanoTime);
  private Arena arena;
  private RamBlock[] blocks = {};

  /** What {@link FileHoles#resident} writes. */
  private MemorySegment resident;

  /** A hole that was found in this round: block, first page, end. */
  private int holeBlock;

  private long holeStart;
  private long holeEnd;

  /** For each block, the byte of its name's length and its name. */
  private MemorySegment[] blockIds = {};

  /** The block that CONTINUE stands for, -1 before the first page. */
  private int last = -1;

  private int nextSectionId = RAM_ID + 1;
  private boolean inRound;

  /** Read by nobody: the JIT would leave out loads of which nothing is kept. */
  private long touched;

  private volatile boolean saidGo;
  private volatile long pages;
  private volatile long zeroPages;

  /**
   * @param socket the connection; borrowed
   * @param throttle consulted after each batch
   */
  public StreamWriter(Socket socket, Throttle throttle) {
    this.out = new GatherOutput(socket, throttle);
  }

  /**
   * Writes magic, version and configuration, once.
   *
   * @param machine the machine's name, at most 255 bytes of UTF-8, which the destination compares
   *     with its own
   */
  public void begin(String machine) {
    byte[] name = StreamFormat.machine(machine);
    if (arena != null) {
      throw new IllegalStateException("the stream has begun");
    }
    arena = Arena.ofShared();
    resident = arena.allocate(ZeroPages.MOST);
    out.open(arena);
    out.be32(StreamFormat.MAGIC);
    out.be32(StreamFormat.VERSION);
    out.be8(StreamFormat.CONFIGURATION);
    out.be32(name.length);
    out.bytes(name);
  }

  /** Tells the destination to answer, see {@link ReturnPath}. */
  public void openReturnPath() {
    command(StreamFormat.CMD_OPEN_RETURN_PATH, 0);
  }

  /**
   * Asks for a PONG once everything before is loaded, and flushes. The first after {@link
   * #endRam()} is the last: after it only {@link #eof()} may follow.
   *
   * @param id comes back in the PONG
   */
  public void ping(int id) {
    command(StreamFormat.CMD_PING, 4);
    out.be32(id);
    out.flush();
  }

  private void command(int command, int length) {
    out.be8(StreamFormat.COMMAND);
    out.be16(command);
    out.be16(length);
  }

  /**
   * Starts the RAM section with the list of all blocks.
   *
   * @param all every block that will be sent, of different names
   * @throws StreamException if some of their memory is not mapped, or may not be read
   */
  public void startRam(List<RamBlock> all) {
    all.forEach(block -> BlockMemory.check(block, false));
    blocks = all.toArray(RamBlock[]::new);
    out.blocks(blocks);
    blockIds = new MemorySegment[blocks.length];
    long total = 0;
    for (int i = 0; i < blocks.length; i++) {
      byte[] name = blocks[i].name().getBytes(StandardCharsets.UTF_8);
      MemorySegment id = arena.allocate(1 + name.length);
      id.set(JAVA_BYTE, 0, (byte) name.length);
      MemorySegment.copy(name, 0, id, JAVA_BYTE, 1, name.length);
      blockIds[i] = id;
      total = Math.addExact(total, blocks[i].bytes());
    }
    sectionHeader(
        StreamFormat.SECTION_START,
        RAM_ID,
        StreamFormat.RAM,
        StreamFormat.RAM_INSTANCE,
        StreamFormat.RAM_VERSION);
    out.be64(total | StreamFormat.FLAG_MEM_SIZE);
    for (int i = 0; i < blocks.length; i++) {
      out.bytes(blockIds[i]);
      out.be64(blocks[i].bytes());
    }
    endRamData();
  }

  /** Opens the part of the RAM section that a round's pages go into. */
  public void beginRound() {
    out.be8(StreamFormat.SECTION_PART);
    out.be32(RAM_ID);
    inRound = true;
    forgetHoles();
    readAhead.pause();
  }

  /**
   * Has holes looked up anew: what was one may be data by now. To be called when more pages' bits
   * were taken from the log, or protected, while a round goes on.
   */
  public void forgetHoles() {
    holeBlock = -1;
  }

  /**
   * Writes pages, between {@link #beginRound()} and {@link #endRound()}. Returns when they are
   * written but for a last batch, having waited for the throttle: a caller that wants to look up
   * now and then (to cancel, say) passes fewer pages at a time. Their bits must have been taken
   * from the log before the round began or {@link #forgetHoles()} was called: a hole that was found
   * once is one until then.
   *
   * @param block one of {@link #startRam}'s
   * @param first the first page
   * @param count how many pages, 0 or more
   * @throws IndexOutOfBoundsException if they are not all inside the block
   * @throws StreamException if one cannot be read
   */
  public void pages(RamBlock block, long first, long count) {
    Objects.checkFromIndexSize(first, count, block.pages());
    if (!inRound) {
      throw new IllegalStateException("pages outside a round");
    }
    int index = indexOf(block);
    FileHoles holes = block.holes().orElse(null);
    long end = first + count;
    long page = first;
    try {
      while (page < end) {
        int some = (int) Math.min(ZeroPages.MOST, end - page);
        if (holes == null) {
          data(index, block.memory(), page, some);
        } else if (isHole(index, page)) {
          some = (int) Math.min(some, holeEnd - page);
          hole(index, page, some);
        } else {
          some = holes.resident(page << Pages.SHIFT, some, resident);
          if (some == 0) {
            holeBlock = index;
            holeStart = page;
            holeEnd = holes.holeEnd(page << Pages.SHIFT) >> Pages.SHIFT;
            if (isHole(index, page)) {
              continue;
            }
            // Swapped out, or not yet read from a disk.
            some = 1;
          }
          data(index, block.memory(), page, some);
        }
        page += some;
      }
    } catch (InternalError e) {
      if (BlockMemory.isFault(e)) {
        throw BlockMemory.unreadable(block, page, Math.min(ZeroPages.MOST, end - page), e);
      }
      throw e;
    }
  }

  private boolean isHole(int index, long page) {
    return index == holeBlock && page >= holeStart && page < holeEnd;
  }

  private void hole(int index, long first, int count) {
    for (long page = first; page < first + count; page++) {
      record(index, page << Pages.SHIFT | StreamFormat.FLAG_ZERO);
      out.be8(0);
    }
    readAhead.pause();
    zeroPages += count;
  }

  private void data(int index, MemorySegment memory, long first, int count) {
    boolean ahead = readAhead.wanted();
    long found = ZeroPages.find(memory, first << Pages.SHIFT, count);
    if (ahead) {
      touched ^= touch(memory, first << Pages.SHIFT, count, found);
    }
    long zero = found;
    for (long page = first; page < first + count; page++, zero >>>= 1) {
      long offset = page << Pages.SHIFT;
      if ((zero & 1) != 0) {
        record(index, offset | StreamFormat.FLAG_ZERO);
        out.be8(0);
      } else {
        record(index, offset | StreamFormat.FLAG_PAGE);
        out.memory(memory, offset, Pages.SIZE);
      }
    }
    int zeros = Long.bitCount(found);
    readAhead.sent(count - zeros);
    zeroPages += zeros;
    pages += count - zeros;
  }

  /**
   * Brings pages that are not zero into the cache. The kernel copies them one by one, and out of
   * memory each copy may begin slowly, where this loop goes over many pages: see {@link ReadAhead}.
   */
  private static long touch(MemorySegment memory, long offset, int count, long zero) {
    long all = 0;
    for (int page = 0; page < count; page++) {
      if ((zero >>> page & 1) == 0) {
        long start = offset + ((long) page << Pages.SHIFT);
        for (long at = start; at < start + Pages.SIZE; at += LINE) {
          all ^= memory.get(JAVA_LONG, at);
        }
      }
    }
    return all;
  }

  private int indexOf(RamBlock block) {
    if (last >= 0 && blocks[last] == block) {
      return last;
    }
    for (int i = 0; i < blocks.length; i++) {
      if (blocks[i].equals(block)) {
        return i;
      }
    }
    throw new IllegalArgumentException(block + " is not in the list that the stream began with");
  }

  private void record(int index, long offsetAndFlag) {
    if (index == last) {
      out.be64(offsetAndFlag | StreamFormat.FLAG_CONTINUE);
    } else {
      out.be64(offsetAndFlag);
      out.bytes(blockIds[index]);
      last = index;
    }
    out.page();
  }

  /** Ends the round's part, and flushes. */
  public void endRound() {
    inRound = false;
    endRamData();
    out.flush();
  }

  /** Ends the RAM section, and flushes: no page comes after. */
  public void endRam() {
    out.be8(StreamFormat.SECTION_END);
    out.be32(RAM_ID);
    endRamData();
    out.flush();
  }

  private void endRamData() {
    out.be64(StreamFormat.FLAG_EOS);
    footer(RAM_ID);
  }

  private void sectionHeader(int type, int id, String name, int instance, int version) {
    byte[] bytes = name.getBytes(StandardCharsets.UTF_8);
    out.be8(type);
    out.be32(id);
    out.be8(bytes.length);
    out.bytes(bytes);
    out.be32(instance);
    out.be32(version);
  }

  private void footer(int id) {
    out.be8(StreamFormat.SECTION_FOOTER);
    out.be32(id);
  }

  /**
   * Writes a full section. Never send one to a QEMU that does not know it: it refuses the guest.
   *
   * @param name 1 to 255 bytes of UTF-8
   * @param instance tells sections of one name apart
   * @param version of the data's layout
   * @param data writes the data
   */
  public void full(String name, int instance, int version, Consumer<SectionOutput> data) {
    named(StreamFormat.SECTION_FULL, name, instance, version, data);
  }

  /**
   * Starts an iterable section, after {@link #startRam}: one whose data comes in pieces.
   *
   * @param name 1 to 255 bytes of UTF-8
   * @param instance tells sections of one name apart
   * @param version of the data's layout
   * @param data writes the first piece
   * @return the section's id, for {@link #part} and {@link #end}
   */
  public int start(String name, int instance, int version, Consumer<SectionOutput> data) {
    return named(StreamFormat.SECTION_START, name, instance, version, data);
  }

  /**
   * Writes a piece of an iterable section, outside a round. Neither this nor {@link #end} flushes.
   *
   * @param id from {@link #start}
   * @param data writes the piece
   */
  public void part(int id, Consumer<SectionOutput> data) {
    piece(StreamFormat.SECTION_PART, id, data);
  }

  /**
   * Writes the last piece of an iterable section.
   *
   * @param id from {@link #start}
   * @param data writes the piece
   */
  public void end(int id, Consumer<SectionOutput> data) {
    piece(StreamFormat.SECTION_END, id, data);
  }

  /**
   * Checks a section's name.
   *
   * @param name 1 to 255 bytes of UTF-8
   * @throws IllegalArgumentException if it is shorter or longer
   */
  public static void checkSectionName(String name) {
    StreamFormat.checkName(name);
  }

  private int named(
      int type, String name, int instance, int version, Consumer<SectionOutput> data) {
    StreamFormat.checkName(name);
    int id = nextSectionId++;
    sectionHeader(type, id, name, instance, version);
    data.accept(out);
    footer(id);
    return id;
  }

  private void piece(int type, int id, Consumer<SectionOutput> data) {
    if (inRound) {
      throw new IllegalStateException("section " + id + " inside a round of RAM");
    }
    out.be8(type);
    out.be32(id);
    data.accept(out);
    footer(id);
  }

  /**
   * Says go: writes the end of the stream, and flushes. From here on the source must not run the
   * guest again, even if this throws, because the byte may have arrived: see {@link #saidGo()}.
   */
  public void eof() {
    out.flush();
    saidGo = true;
    out.be8(StreamFormat.EOF);
    out.flush();
  }

  /** Whether the destination may have been told to run the guest. It never goes back to false. */
  public boolean saidGo() {
    return saidGo;
  }

  /**
   * Writes the description that QEMU's tools read, after {@link #eof()}, and flushes. A QEMU as the
   * destination is not done before it has one, or the connection's end ({@link
   * Socket#shutdownOutput()}).
   *
   * @param json a JSON object, if only an empty one
   */
  public void description(String json) {
    byte[] bytes = json.getBytes(StandardCharsets.UTF_8);
    out.be8(StreamFormat.VMDESCRIPTION);
    out.be32(bytes.length);
    out.bytes(bytes);
    out.flush();
  }

  /** Writes what waits to be written. */
  public void flush() {
    out.flush();
  }

  /** How many bytes went to the socket. */
  public long bytesWritten() {
    return out.bytes();
  }

  /** How many pages were written whole, the last batch's included. */
  public long pagesWritten() {
    return pages;
  }

  /** How many pages were found zero, and written as one byte. */
  public long zeroPagesWritten() {
    return zeroPages;
  }

  /**
   * {@code System.nanoTime()} just before the call that handed the first page to the kernel, a zero
   * page's record included; 0 if none was.
   */
  public long firstPageNanos() {
    return out.firstPageNanos();
  }

  /** How many {@code writev} calls there were. */
  public long writeCalls() {
    return out.calls();
  }

  /**
   * Frees the buffers; the counters stay. What was not flushed is not written. Nothing can be
   * written after it.
   */
  @Override
  public void close() {
    out.close();
    if (arena != null && arena.scope().isAlive()) {
      arena.close();
    }
  }
}
