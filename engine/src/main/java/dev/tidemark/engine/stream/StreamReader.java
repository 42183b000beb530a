package dev.tidemark.engine.stream;

import static dev.tidemark.engine.stream.StreamFormat.hex;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.ffm.FileHoles;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.internal.Unwind;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;

/**
 * Loads QEMU's migration stream, version 3, into the destination's memory. Every field is checked
 * before anything is done with it; the first one that is wrong ends the load with a {@link
 * StreamException}, and never was a byte written outside the blocks.
 *
 * <p>Full sections are loaded by {@link SectionHandler}s, iterable ones other than {@code ram} by
 * {@link IterableHandler}s: each of the caller's must come, once; an unknown one is an error.
 * QEMU's own {@code timer} and {@code globalstate} are read and forgotten.
 *
 * <p>A QEMU up to 11.1 can be the source. Its capability {@code return-path} is used where it is
 * on. These must be off there: {@code multifd}, {@code xbzrle}, {@code compress}, {@code
 * postcopy-ram}, {@code x-colo}, {@code x-ignore-shared}, {@code mapped-ram} and {@code
 * validate-uuid}, which are refused by name, and {@code switchover-ack}, whose answer the source
 * would await for ever.
 *
 * <p>Never two guests: {@link #loadUntilHandover()} returns only after the source said go. If it
 * throws, the guest must not run here.
 *
 * <p>Nothing that the stream claims is allocated before it has come. What is kept of it is bounded
 * by the number of blocks and handlers.
 *
 * <p>Threading: one thread. Cost: no allocation for pages and rounds; a page is copied once, out of
 * the read buffer. Footprint: 256 KiB off-heap from {@link #loadUntilHandover()} to {@link
 * #close()}.
 */
public final class StreamReader implements AutoCloseable {
  /** The most that a description may be long, in bytes. */
  private static final int MAX_DESCRIPTION = 16 << 20;

  /** The first piece of a description, in bytes; each further one doubles what is there. */
  private static final int FIRST_DESCRIPTION = 64 << 10;

  /** Zero pages that follow each other are cleared in one go, so many bytes at most. */
  private static final long MOST_ZERO_BYTES = ZeroPages.MOST * Pages.SIZE;

  private static final long FLAGS = Pages.SIZE - 1;

  private final BufferedInput in;
  private final Socket socket;
  private final String machine;
  private final RamBlock[] blocks;
  private final byte[][] blockNames;
  private final List<SectionHandler> handlers;
  private final List<SectionHandler> missing;
  private final List<IterableHandler> iterables;
  private final Map<Integer, IterableHandler> started = new HashMap<>();
  private final List<IterableHandler> unended;
  private final List<SectionHandler> tolerated =
      new ArrayList<>(
          List.of(
              SectionHandler.skipping("timer", 2, 24),
              SectionHandler.skipping("globalstate", 1, 104)));

  private Arena arena;

  /** What {@link FileHoles#resident} writes. */
  private MemorySegment resident;

  /** Where in the block {@link #last} the page goes that is being written. */
  private long target;

  private final byte[] name = new byte[StreamFormat.MAX_NAME];
  private final MemorySegment nameMemory = MemorySegment.ofArray(name);
  private final Set<Integer> sectionIds = new HashSet<>();
  private ReturnPath returnPath;
  private boolean ramStarted;
  private boolean ramEnded;
  private int ramId;
  private boolean go;

  /** The block that CONTINUE stands for, -1 before the first page. */
  private int last = -1;

  private volatile long pages;
  private volatile long zeroPages;

  /**
   * For a guest without iterable sections other than {@code ram}.
   *
   * @param socket the connection, nothing of the stream read yet; borrowed
   * @param machine the machine's name, which must be the source's
   * @param blocks all of the guest's memory
   * @param handlers for the full sections that must come
   */
  public StreamReader(
      Socket socket, String machine, List<RamBlock> blocks, List<SectionHandler> handlers) {
    this(socket, machine, blocks, List.of(), handlers);
  }

  /**
   * @param socket the connection, nothing of the stream read yet; borrowed
   * @param machine the machine's name, which must be the source's
   * @param blocks all of the guest's memory, of different names, no page in two of them; the source
   *     must have the same names and lengths
   * @param iterables for the iterable sections that must come
   * @param handlers for the full sections that must come
   */
  public StreamReader(
      Socket socket,
      String machine,
      List<RamBlock> blocks,
      List<? extends IterableHandler> iterables,
      List<SectionHandler> handlers) {
    this.socket = socket;
    this.in = new BufferedInput(socket);
    StreamFormat.machine(machine);
    this.machine = machine;
    this.blocks = blocks.toArray(RamBlock[]::new);
    this.blockNames =
        blocks.stream()
            .map(block -> block.name().getBytes(StandardCharsets.UTF_8))
            .toArray(byte[][]::new);
    RamBlock.checkTogether(blocks);
    this.handlers = List.copyOf(handlers);
    this.missing = new ArrayList<>(handlers);
    this.iterables = List.copyOf(iterables);
    this.unended = new ArrayList<>(iterables);
    iterables.forEach(iterable -> StreamFormat.checkName(iterable.name()));
    List<String> names =
        Stream.concat(
                Stream.of(StreamFormat.RAM + "/" + StreamFormat.RAM_INSTANCE),
                Stream.concat(
                    handlers.stream().map(h -> h.name() + "/" + h.instance()),
                    iterables.stream().map(h -> h.name() + "/" + h.instance())))
            .toList();
    if (names.stream().distinct().count() != names.size()) {
      throw new IllegalArgumentException("two handlers of one section: " + names);
    }
  }

  /**
   * Loads everything, answers every PING, and returns as soon as the source has said go: from then
   * on the guest is the caller's to run. When it runs, {@link #shut} with 0 tells the source.
   *
   * <p>A failure is told to the source with SHUT 1, if there is a return path.
   *
   * @throws StreamException if the stream is wrong, or ends before the source said go, or memory of
   *     a block cannot be written
   * @throws IllegalStateException if it was called before; then nothing is read or sent
   */
  public void loadUntilHandover() {
    if (arena != null) {
      throw new IllegalStateException("a stream is loaded once");
    }
    arena = Arena.ofShared();
    resident = arena.allocate(ZeroPages.MOST);
    in.open(arena);
    try {
      header();
      configuration();
      boolean loaded = false;
      while (!go) {
        in.enter(
            loaded
                ? "the handover: all is loaded, but the source has not said go"
                : "the list of elements: the end of file mark is missing");
        loaded = element(loaded);
      }
    } catch (RuntimeException | Error e) {
      if (returnPath != null) {
        try {
          returnPath.shut(1);
        } catch (RuntimeException | Error again) {
          Unwind.join(e, again);
        }
      }
      throw e;
    }
  }

  /**
   * Tells the source how it ended, if there is a return path.
   *
   * @param status 0 if the guest runs here
   */
  public void shut(int status) {
    if (returnPath != null) {
      returnPath.shut(status);
    }
  }

  /**
   * Reads what may follow after go, to the end of the stream: a source that is a QEMU writes a
   * description, and fails if nobody takes it.
   *
   * @return JSON, or empty if there is none
   * @throws StreamException if it is anything else, or cut
   */
  public Optional<String> description() {
    if (!go) {
      throw new IllegalStateException("the source has not said go");
    }
    in.enter("what follows the end of file mark");
    long at = in.position();
    int type = in.be8OrEnd();
    if (type < 0) {
      return Optional.empty();
    }
    if (type != StreamFormat.VMDESCRIPTION) {
      throw wrong(at, "after the end of file mark", "06 (description) or nothing", hex(type));
    }
    in.enter("the description");
    at = in.position();
    int length = in.be32();
    if (length < 0 || length > MAX_DESCRIPTION) {
      throw wrong(
          at, "description's length", "0 to " + MAX_DESCRIPTION, Integer.toUnsignedString(length));
    }
    byte[] json = {};
    while (json.length < length) {
      int done = json.length;
      json = Arrays.copyOf(json, Math.min(length, Math.max(FIRST_DESCRIPTION, 2 * done)));
      in.bytes(MemorySegment.ofArray(json), done, json.length - done);
    }
    return Optional.of(new String(json, StandardCharsets.UTF_8));
  }

  /** How many bytes of the stream were read. */
  public long bytesRead() {
    return in.position();
  }

  /** How many pages came whole. */
  public long pagesRead() {
    return pages;
  }

  /** How many pages came as zero. */
  public long zeroPagesRead() {
    return zeroPages;
  }

  private static StreamException wrong(long at, String what, String expected, String found) {
    return wrong(at, what + ": expected " + expected + ", found " + found);
  }

  /** One line, whatever the other side put into its names. */
  private static StreamException wrong(long at, String what) {
    return new StreamException("stream byte " + at + ": " + StreamFormat.printable(what));
  }

  private void header() {
    in.enter("the header");
    long at = in.position();
    int magic = in.be32();
    if (magic != StreamFormat.MAGIC) {
      throw wrong(at, "magic", hex(StreamFormat.MAGIC), hex(magic));
    }
    at = in.position();
    int version = in.be32();
    if (version != StreamFormat.VERSION) {
      throw wrong(
          at, "version", Integer.toString(StreamFormat.VERSION), Integer.toUnsignedString(version));
    }
  }

  private void configuration() {
    in.enter("the configuration");
    long at = in.position();
    int type = in.be8();
    if (type != StreamFormat.CONFIGURATION) {
      throw wrong(at, "first element", "07 (configuration)", hex(type));
    }
    at = in.position();
    int length = in.be32();
    if (length < 0 || length > StreamFormat.MAX_NAME) {
      throw wrong(
          at,
          "length of the machine's name",
          "at most " + StreamFormat.MAX_NAME,
          Integer.toUnsignedString(length));
    }
    at = in.position();
    in.bytes(nameMemory, 0, length);
    String found = text(length);
    if (!found.equals(machine)) {
      throw wrong(at, "machine", machine, found);
    }
  }

  /** Loads one element; whether everything is loaded and acknowledged. */
  private boolean element(boolean loaded) {
    long at = in.position();
    int type = in.be8();
    if (loaded && type != StreamFormat.EOF) {
      throw wrong(at, "element after the last PING", "00 (end of file)", hex(type));
    }
    switch (type) {
      case StreamFormat.EOF -> end(at);
      case StreamFormat.COMMAND -> {
        return command();
      }
      case StreamFormat.SECTION_START -> start(at);
      case StreamFormat.SECTION_PART, StreamFormat.SECTION_END -> piece(at, type);
      case StreamFormat.SECTION_FULL -> full(at);
      case StreamFormat.SUBSECTION -> {
        in.enter("a subsection's name");
        String subsection = text(readName());
        throw wrong(
            at, "subsection " + subsection + ": " + StreamFormat.refusedSubsection(subsection));
      }
      default -> throw wrong(at, "element", "00 to 04 or 08", hex(type));
    }
    return false;
  }

  private void end(long at) {
    checkComplete(at, "end of file");
    go = true;
  }

  private void checkComplete(long at, String what) {
    if (!ramEnded) {
      throw wrong(at, what, "after the ram section's end", "it before");
    }
    if (!unended.isEmpty()) {
      throw wrong(at, what + ": section " + unended.getFirst().name() + " has not ended");
    }
    if (!missing.isEmpty()) {
      SectionHandler section = missing.getFirst();
      throw wrong(
          at, what + ": section " + section.name() + "/" + section.instance() + " never came");
    }
  }

  private boolean command() {
    in.enter("a command");
    long at = in.position();
    int command = in.be16();
    int length = in.be16();
    switch (command) {
      case StreamFormat.CMD_OPEN_RETURN_PATH -> {
        checkLength(at, "OPEN_RETURN_PATH", 0, length);
        if (returnPath != null) {
          throw wrong(at, "OPEN_RETURN_PATH", "it once", "it again");
        }
        returnPath = new ReturnPath(socket);
        return false;
      }
      case StreamFormat.CMD_PING -> {
        checkLength(at, "PING", 4, length);
        if (returnPath == null) {
          throw wrong(at, "PING", "OPEN_RETURN_PATH before it", "none");
        }
        int id = in.be32();
        if (ramEnded) {
          checkComplete(at, "last PING");
        }
        returnPath.pong(id);
        return ramEnded;
      }
      case StreamFormat.CMD_SWITCHOVER_START -> {
        // The source's guest has stopped, and what devices sent on other channels may be loaded.
        // Here they have no other channels.
        checkLength(at, "SWITCHOVER_START", 0, length);
        return false;
      }
      default -> {
        String refused = StreamFormat.refusedCommand(command);
        if (refused != null) {
          throw wrong(at, refused);
        }
        throw wrong(
            at,
            "command",
            "1 (OPEN_RETURN_PATH), 2 (PING) or 11 (SWITCHOVER_START)",
            Integer.toString(command));
      }
    }
  }

  private static void checkLength(long at, String what, int expected, int found) {
    if (found != expected) {
      throw wrong(at, what, expected + " bytes of data", Integer.toString(found));
    }
  }

  private void start(long at) {
    in.enter("a section's start");
    if (ramEnded) {
      throw wrong(at, "section start", "it before the ram section's end", "it after");
    }
    int id = newId();
    at = in.position();
    String idstr = text(readName());
    int instance = in.be32();
    int version = in.be32();
    if (idstr.equals(StreamFormat.RAM)) {
      startRam(at, id, instance, version);
    } else {
      startIterable(at, id, idstr, instance, version);
    }
    footer(id);
  }

  private int newId() {
    long at = in.position();
    int id = in.be32();
    if (!sectionIds.add(id)) {
      throw wrong(at, "section id", "a new one", Integer.toUnsignedString(id) + " again");
    }
    return id;
  }

  private void startRam(long at, int id, int instance, int version) {
    in.enter("the ram section's start");
    if (ramStarted) {
      throw wrong(at, "section start", "the ram section's once", "another");
    }
    if (instance != StreamFormat.RAM_INSTANCE || version != StreamFormat.RAM_VERSION) {
      throw wrong(
          at,
          "section ram",
          "instance " + StreamFormat.RAM_INSTANCE + " version " + StreamFormat.RAM_VERSION,
          "instance " + instance + " version " + version);
    }
    blockList();
    at = in.position();
    long record = in.be64();
    if (record != StreamFormat.FLAG_EOS) {
      checkFlags(at, (int) (record & FLAGS));
      throw wrong(at, "record after the block list", hex(StreamFormat.FLAG_EOS), hex(record));
    }
    for (RamBlock block : blocks) {
      BlockMemory.check(block, true);
    }
    ramId = id;
    ramStarted = true;
  }

  private void startIterable(long at, int id, String idstr, int instance, int version) {
    IterableHandler handler = null;
    for (IterableHandler iterable : iterables) {
      if (iterable.name().equals(idstr) && iterable.instance() == instance) {
        handler = iterable;
      }
    }
    if (handler == null) {
      throw wrong(
          at,
          "section start",
          "ram"
              + (iterables.isEmpty()
                  ? ""
                  : " or one of " + iterables.stream().map(IterableHandler::name).toList()),
          idstr + "/" + Integer.toUnsignedString(instance));
    }
    if (started.containsValue(handler)) {
      throw wrong(at, "start of section " + idstr, "it once", "it again");
    }
    checkVersion(at, idstr, handler.version(), version);
    started.put(id, handler);
    in.enter("the start of section " + idstr);
    handler.start();
    handler.load(in);
  }

  private static void checkVersion(long at, String idstr, int expected, int found) {
    if (found != expected) {
      throw wrong(
          at,
          "version of section " + idstr,
          Integer.toUnsignedString(expected),
          Integer.toUnsignedString(found));
    }
  }

  /** Checks that the source has the same memory as the destination. */
  private void blockList() {
    long at = in.position();
    long expected = 0;
    for (RamBlock block : blocks) {
      expected += block.bytes();
    }
    long record = in.be64();
    if ((record & FLAGS) != StreamFormat.FLAG_MEM_SIZE) {
      throw wrong(
          at,
          "first ram record's flags",
          hex(StreamFormat.FLAG_MEM_SIZE) + " (memory size, whole pages)",
          hex(record & FLAGS));
    }
    long total = record & ~FLAGS;
    if (total != expected) {
      throw wrong(
          at, "memory size in bytes", Long.toString(expected), Long.toUnsignedString(total));
    }
    boolean[] seen = new boolean[blocks.length];
    long left = total;
    while (left > 0) {
      at = in.position();
      int index = readBlock();
      if (seen[index]) {
        throw wrong(at, "block list", "each block once", blocks[index].name() + " again");
      }
      seen[index] = true;
      at = in.position();
      long bytes = in.be64();
      if (bytes != blocks[index].bytes()) {
        throw wrong(
            at,
            "length of block " + blocks[index].name() + " in bytes",
            Long.toString(blocks[index].bytes()),
            Long.toUnsignedString(bytes));
      }
      left -= bytes;
    }
  }

  private int readName() {
    int length = in.be8();
    in.bytes(nameMemory, 0, length);
    return length;
  }

  /** Reads a block's name and finds the block. */
  private int readBlock() {
    long at = in.position();
    int length = readName();
    for (int i = 0; i < blockNames.length; i++) {
      if (Arrays.equals(name, 0, length, blockNames[i], 0, blockNames[i].length)) {
        return i;
      }
    }
    throw wrong(
        at, "block", "one of " + Arrays.stream(blocks).map(RamBlock::name).toList(), text(length));
  }

  private String text(int length) {
    return new String(name, 0, length, StandardCharsets.UTF_8);
  }

  private void piece(long at, int type) {
    in.enter("a part of a section");
    long idAt = in.position();
    int id = in.be32();
    IterableHandler handler = ramStarted && id == ramId ? null : started.get(id);
    if (handler == null) {
      ramPart(at, idAt, id, type);
      return;
    }
    boolean ends = type == StreamFormat.SECTION_END;
    if (!unended.contains(handler)) {
      throw wrong(idAt, "part of section " + handler.name(), "none after its end", "another");
    }
    in.enter("a part of section " + handler.name());
    handler.load(in);
    footer(id);
    if (ends) {
      unended.remove(handler);
      handler.end();
    }
  }

  private void ramPart(long at, long idAt, int id, int type) {
    in.enter("a part of the ram section");
    if (!ramStarted || ramEnded) {
      throw wrong(
          at,
          type == StreamFormat.SECTION_PART ? "section part" : "section end",
          "it between the ram section's start and its end",
          ramEnded ? "it after the end" : "it before the start");
    }
    if (id != ramId) {
      throw wrong(
          idAt, "section id", Integer.toUnsignedString(ramId), Integer.toUnsignedString(id));
    }
    try {
      records();
    } catch (InternalError e) {
      if (BlockMemory.isFault(e)) {
        throw BlockMemory.unwritable(blocks[last], target, e);
      }
      throw e;
    }
    footer(ramId);
    ramEnded = type == StreamFormat.SECTION_END;
    if (ramEnded) {
      checkPages(at);
    }
  }

  /**
   * A QEMU before 8.1 that has multifd on sends zero pages here and the others on more connections,
   * which a listening socket takes, and nothing else in the stream tells of them.
   */
  private void checkPages(long at) {
    long all = 0;
    for (RamBlock block : blocks) {
      all += block.pages();
    }
    if (pages == 0 && zeroPages > 0 && zeroPages < all) {
      throw wrong(
          at,
          String.format(
                  Locale.ROOT,
                  "end of the ram section: zero pages came, %d of %d, and no others: they go other ways by",
                  zeroPages,
                  all)
              + " multifd, which is not supported here; turn it off at the source");
    }
  }

  private void records() {
    long whole = 0;
    long zeros = 0;
    // A stretch of zero pages, not cleared yet.
    int block = 0;
    long start = 0;
    long length = 0;
    while (true) {
      long at = in.position();
      long record = in.be64();
      int flags = (int) (record & FLAGS);
      if (length > 0
          && (flags != (StreamFormat.FLAG_ZERO | StreamFormat.FLAG_CONTINUE)
              || (record & ~FLAGS) != start + length
              || length == MOST_ZERO_BYTES)) {
        clear(blocks[block], start, (int) (length >>> Pages.SHIFT));
        length = 0;
      }
      switch (flags) {
        case StreamFormat.FLAG_EOS -> {
          if (record != StreamFormat.FLAG_EOS) {
            throw wrong(at, "end of the ram section's data", "offset 0", hex(record & ~FLAGS));
          }
          pages += whole;
          zeroPages += zeros;
          return;
        }
        case StreamFormat.FLAG_PAGE, StreamFormat.FLAG_PAGE | StreamFormat.FLAG_CONTINUE -> {
          long offset = place(at, record, flags);
          target = offset;
          in.bytes(blocks[last].memory(), offset, Pages.SIZE);
          whole++;
        }
        case StreamFormat.FLAG_ZERO, StreamFormat.FLAG_ZERO | StreamFormat.FLAG_CONTINUE -> {
          long offset = place(at, record, flags);
          at = in.position();
          int fill = in.be8();
          if (fill != 0) {
            throw wrong(at, "zero page's byte", "0", hex(fill));
          }
          if (length == 0) {
            block = last;
            start = offset;
          }
          length += Pages.SIZE;
          zeros++;
        }
        default -> {
          checkFlags(at, flags);
          throw wrong(at, "ram record's flags", "0x2, 0x8, 0x10, 0x22 or 0x28", hex(flags));
        }
      }
    }
  }

  private void clear(RamBlock block, long offset, int pages) {
    FileHoles holes = block.holes().orElse(null);
    try {
      if (holes == null) {
        ZeroPages.clear(block.memory(), offset, pages);
      } else {
        ZeroPages.clear(block.memory(), holes, resident, offset, pages);
      }
    } catch (InternalError e) {
      if (BlockMemory.isFault(e)) {
        throw BlockMemory.unreadable(block, offset >> Pages.SHIFT, pages, e);
      }
      throw e;
    }
  }

  /** Refuses by its name what a QEMU may send. */
  private static void checkFlags(long at, int flags) {
    String refused = StreamFormat.refusedFlag(flags);
    if (refused != null) {
      throw wrong(at, "ram record's flags: " + refused);
    }
  }

  /** The offset that a page goes to, in the block that is then {@link #last}. */
  private long place(long at, long record, int flags) {
    if ((flags & StreamFormat.FLAG_CONTINUE) == 0) {
      last = readBlock();
    } else if (last < 0) {
      throw wrong(at, "first page record", "a block's name", "the flag CONTINUE");
    }
    long offset = record & ~FLAGS;
    long bytes = blocks[last].bytes();
    if (Long.compareUnsigned(offset, bytes) >= 0) {
      throw wrong(
          at, "offset in block " + blocks[last].name(), "less than " + hex(bytes), hex(offset));
    }
    return offset;
  }

  private void full(long at) {
    in.enter("a full section's header");
    if (!ramEnded) {
      throw wrong(at, "full section", "it after the ram section's end", "it before");
    }
    if (!unended.isEmpty()) {
      throw wrong(
          at,
          "full section",
          "it after the end of section " + unended.getFirst().name(),
          "it before");
    }
    int id = newId();
    at = in.position();
    String idstr = text(readName());
    int instance = in.be32();
    int version = in.be32();
    SectionHandler handler = handler(at, idstr, instance);
    checkVersion(at, idstr, handler.version(), version);
    in.enter("section " + idstr);
    handler.loader().load(in);
    footer(id);
  }

  private SectionHandler handler(long at, String idstr, int instance) {
    for (SectionHandler handler : handlers) {
      if (handler.name().equals(idstr) && handler.instance() == instance) {
        if (!missing.remove(handler)) {
          throw wrong(at, "section " + idstr, "it once", "it again");
        }
        return handler;
      }
    }
    for (SectionHandler handler : tolerated) {
      if (handler.name().equals(idstr) && handler.instance() == instance) {
        tolerated.remove(handler);
        return handler;
      }
    }
    throw wrong(
        at,
        "section "
            + idstr
            + "/"
            + Integer.toUnsignedString(instance)
            + " is not known here, or came already");
  }

  private void footer(int id) {
    long at = in.position();
    int mark = in.be8();
    if (mark != StreamFormat.SECTION_FOOTER) {
      throw wrong(at, "after a section's data", "7e (footer)", hex(mark));
    }
    at = in.position();
    int found = in.be32();
    if (found != id) {
      throw wrong(
          at,
          "section id in the footer",
          Integer.toUnsignedString(id),
          Integer.toUnsignedString(found));
    }
  }

  /** Frees the buffer; the counters stay. Nothing can be read after it. */
  @Override
  public void close() {
    if (arena != null && arena.scope().isAlive()) {
      arena.close();
      if (returnPath != null) {
        returnPath.close();
      }
    }
  }
}
