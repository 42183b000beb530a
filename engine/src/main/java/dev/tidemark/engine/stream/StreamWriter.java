package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.engine.log.RamBlock;
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
 * stream is then of no further use.
 */
public final class StreamWriter {
  private static final int RAM_ID = 2;

  /** Bytes of a line of the cache. */
  private static final int LINE = 64;

  private final GatherOutput out;
  private final ReadAhead readAhead = new ReadAhead(System::nanoTime);
  private RamBlock[] blocks = {};

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
   * Writes magic, version and configuration.
   *
   * @param machine the machine's name, which the destination compares with its own
   */
  public void begin(String machine) {
    out.be32(StreamFormat.MAGIC);
    out.be32(StreamFormat.VERSION);
    byte[] name = machine.getBytes(StandardCharsets.UTF_8);
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
   */
  public void startRam(List<RamBlock> all) {
    blocks = all.toArray(RamBlock[]::new);
    blockIds = new MemorySegment[blocks.length];
    Arena arena = Arena.ofAuto();
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
    readAhead.pause();
  }

  /**
   * Writes pages, between {@link #beginRound()} and {@link #endRound()}. Returns when they are
   * written but for a last batch, having waited for the throttle: a caller that wants to look up
   * now and then (to cancel, say) passes fewer pages at a time.
   *
   * @param block one of {@link #startRam}'s
   * @param first the first page
   * @param count how many pages, 0 or more
   * @throws IndexOutOfBoundsException if they are not all inside the block
   */
  public void pages(RamBlock block, long first, long count) {
    Objects.checkFromIndexSize(first, count, block.pages());
    if (!inRound) {
      throw new IllegalStateException("pages outside a round");
    }
    int index = indexOf(block);
    MemorySegment memory = block.memory();
    long zeros = 0;
    long end = first + count;
    for (long page = first; page < end; ) {
      int some = (int) Math.min(ZeroPages.MOST, end - page);
      if (readAhead.wanted()) {
        touched ^= touch(memory, page << Pages.SHIFT, (long) some << Pages.SHIFT);
      }
      long found = ZeroPages.find(memory, page << Pages.SHIFT, some);
      long zero = found;
      zeros += Long.bitCount(zero);
      for (long stop = page + some; page < stop; page++, zero >>>= 1) {
        long offset = page << Pages.SHIFT;
        if ((zero & 1) != 0) {
          record(index, offset | StreamFormat.FLAG_ZERO);
          out.be8(0);
        } else {
          record(index, offset | StreamFormat.FLAG_PAGE);
          out.memory(memory, offset, Pages.SIZE);
        }
      }
      readAhead.sent(some - Long.bitCount(found));
    }
    zeroPages += zeros;
    pages += count - zeros;
  }

  /**
   * Brings pages into the cache. The kernel copies them one by one, and out of memory each copy may
   * begin slowly, where this loop goes over many pages: see {@link ReadAhead}.
   */
  private static long touch(MemorySegment memory, long offset, long bytes) {
    long all = 0;
    for (long at = offset; at < offset + bytes; at += LINE) {
      all ^= memory.get(JAVA_LONG, at);
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

  /** How many {@code writev} calls there were. */
  public long writeCalls() {
    return out.calls();
  }
}
