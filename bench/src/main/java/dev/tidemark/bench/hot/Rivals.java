package dev.tidemark.bench.hot;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * The functions of {@code rivals.c}: C beside Java, compiled for this machine when first needed,
 * with {@code cc -O3 -march=native}.
 *
 * <p>Threading: any. Cost: a second of compiling, once; then a critical downcall each.
 */
public final class Rivals {
  /** The compiler's command line, without its files. */
  public static final List<String> COMPILER = List.of("cc", "-O3", "-march=native");

  private static final class Library {
    static final SymbolLookup SYMBOLS = compile();

    static final MethodHandle WIDTH = function(JAVA_LONG, "width");
    static final MethodHandle LIMIT_READ = function(JAVA_LONG, "limit_read", ADDRESS, JAVA_LONG);
    static final MethodHandle LIMIT_COPY =
        function(null, "limit_copy", ADDRESS, ADDRESS, JAVA_LONG);
    static final MethodHandle LIMIT_FILL = function(null, "limit_fill", ADDRESS, JAVA_LONG);
    static final MethodHandle PLAIN_OR_COUNT =
        function(JAVA_LONG, "plain_or_count", ADDRESS, ADDRESS, JAVA_LONG);
    static final MethodHandle PLAIN_OR_COUNT_CLEAR =
        function(JAVA_LONG, "plain_or_count_clear", ADDRESS, ADDRESS, JAVA_LONG);
    static final MethodHandle SAME_OR_COUNT =
        function(JAVA_LONG, "same_or_count", ADDRESS, ADDRESS, JAVA_LONG);
    static final MethodHandle SAME_OR_COUNT_CLEAR =
        function(JAVA_LONG, "same_or_count_clear", ADDRESS, ADDRESS, JAVA_LONG);
    static final MethodHandle SAME_OR_COUNT_SHIFTED =
        function(JAVA_LONG, "same_or_count_shifted", ADDRESS, ADDRESS, JAVA_LONG, JAVA_INT);
    static final MethodHandle SAME_CARDINALITY =
        function(JAVA_LONG, "same_cardinality", ADDRESS, JAVA_LONG);
    static final MethodHandle SAME_HARVEST =
        function(JAVA_LONG, "same_harvest", ADDRESS, JAVA_LONG, ADDRESS);
    static final MethodHandle BIT_BY_BIT_HARVEST =
        function(JAVA_LONG, "bit_by_bit_harvest", ADDRESS, JAVA_LONG);
    static final MethodHandle KERNEL_OVERWRITE =
        function(null, "kernel_overwrite", ADDRESS, ADDRESS, JAVA_LONG);
    static final MethodHandle KERNEL_OR = function(null, "kernel_or", ADDRESS, ADDRESS, JAVA_LONG);
    static final MethodHandle QEMU_NEW = function(ADDRESS, "qemu_new", JAVA_LONG);
    static final MethodHandle QEMU_FREE = function(null, "qemu_free", ADDRESS);
    static final MethodHandle QEMU_SYNC =
        function(JAVA_LONG, "qemu_sync", ADDRESS, ADDRESS, ADDRESS, JAVA_LONG, JAVA_LONG);
    static final MethodHandle IOCTL_CALLS =
        function(JAVA_INT, "ioctl_calls", JAVA_INT, JAVA_LONG, JAVA_LONG);

    static final MethodHandle ATOMIC_ORS =
        function(null, "atomic_ors", ADDRESS, ADDRESS, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    static final MethodHandle SCATTER =
        function(JAVA_LONG, "scatter", ADDRESS, ADDRESS, ADDRESS, JAVA_LONG, JAVA_LONG);
    static final MethodHandle SCATTER_BITS =
        function(JAVA_LONG, "scatter_bits", ADDRESS, ADDRESS, ADDRESS, JAVA_LONG, JAVA_LONG);
    static final MethodHandle PAGEMAP_ROUND =
        function(JAVA_LONG, "pagemap_round", ADDRESS, JAVA_LONG, ADDRESS, JAVA_LONG);

    @SuppressWarnings("restricted")
    private static MethodHandle function(
        MemoryLayout result, String name, MemoryLayout... arguments) {
      FunctionDescriptor type =
          result == null
              ? FunctionDescriptor.ofVoid(arguments)
              : FunctionDescriptor.of(result, arguments);
      return Linker.nativeLinker()
          .downcallHandle(SYMBOLS.findOrThrow(name), type, Linker.Option.critical(false));
    }

    @SuppressWarnings("restricted")
    private static SymbolLookup compile() {
      Path folder = null;
      try (InputStream source = Rivals.class.getResourceAsStream("rivals.c")) {
        folder = Files.createTempDirectory("tidemark-rivals");
        Path file = folder.resolve("rivals.c");
        Files.copy(source, file);
        Path library = folder.resolve("rivals.so");
        run(List.of("-shared", "-fPIC", "-o", library.toString(), file.toString()));
        SymbolLookup symbols = SymbolLookup.libraryLookup(library, Arena.global());
        Files.delete(library);
        Files.delete(file);
        Files.delete(folder);
        return symbols;
      } catch (IOException e) {
        throw new UncheckedIOException("rivals.c in " + folder, e);
      }
    }
  }

  private Rivals() {}

  private static void run(List<String> files) throws IOException {
    List<String> command = new ArrayList<>(COMPILER);
    command.addAll(files);
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes());
    try {
      if (process.waitFor() != 0) {
        throw new IOException(String.join(" ", command) + " failed:\n" + output);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IOException("interrupted", e);
    }
  }

  /** Why there are no rivals in C; empty if there are. */
  public static Optional<String> missing() {
    try {
      width();
      return Optional.empty();
    } catch (ExceptionInInitializerError | NoClassDefFoundError e) {
      Throwable cause = e.getCause() == null ? e : e.getCause();
      return Optional.of("no rivals in C: " + cause.getMessage() + ": install gcc");
    }
  }

  private static IllegalStateException failed(Throwable e) {
    return new IllegalStateException("a call of rivals.c failed", e);
  }

  /** Width of its vectors in bits. */
  public static long width() {
    try {
      return (long) Library.WIDTH.invokeExact();
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Reads memory, whole 256 bytes of it. */
  public static long limitRead(MemorySegment memory, long bytes) {
    try {
      return (long) Library.LIMIT_READ.invokeExact(memory, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** {@code memcpy}. */
  public static void limitCopy(MemorySegment dst, MemorySegment src, long bytes) {
    try {
      Library.LIMIT_COPY.invokeExact(dst, src, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** {@code memset} to 0. */
  public static void limitFill(MemorySegment dst, long bytes) {
    try {
      Library.LIMIT_FILL.invokeExact(dst, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Merges and counts with a plain loop. */
  public static long plainOrCount(MemorySegment dst, MemorySegment src, long bytes) {
    try {
      return (long) Library.PLAIN_OR_COUNT.invokeExact(dst, src, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Merges, counts and clears with a plain loop. */
  public static long plainOrCountClear(MemorySegment dst, MemorySegment src, long bytes) {
    try {
      return (long) Library.PLAIN_OR_COUNT_CLEAR.invokeExact(dst, src, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Merges and counts by Tidemark's algorithm. */
  public static long sameOrCount(MemorySegment dst, MemorySegment src, long bytes) {
    try {
      return (long) Library.SAME_OR_COUNT.invokeExact(dst, src, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Merges, counts and clears by Tidemark's algorithm. */
  public static long sameOrCountClear(MemorySegment dst, MemorySegment src, long bytes) {
    try {
      return (long) Library.SAME_OR_COUNT_CLEAR.invokeExact(dst, src, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Merges and counts a source that begins 1 to 63 bits further on. */
  public static long sameOrCountShifted(
      MemorySegment dst, MemorySegment src, long bytes, int shift) {
    try {
      return (long) Library.SAME_OR_COUNT_SHIFTED.invokeExact(dst, src, bytes, shift);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Counts bits. */
  public static long sameCardinality(MemorySegment map, long bytes) {
    try {
      return (long) Library.SAME_CARDINALITY.invokeExact(map, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Lists the runs and clears the plane by Tidemark's algorithm. */
  public static long sameHarvest(MemorySegment map, long words, MemorySegment lines) {
    try {
      return (long) Library.SAME_HARVEST.invokeExact(map, words, lines);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Finds the next bit, tests and clears it, page by page. */
  public static long bitByBitHarvest(MemorySegment map, long words) {
    try {
      return (long) Library.BIT_BY_BIT_HARVEST.invokeExact(map, words);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** What a kernel does that overwrites. */
  public static void kernelOverwrite(MemorySegment dst, MemorySegment answer, long bytes) {
    try {
      Library.KERNEL_OVERWRITE.invokeExact(dst, answer, bytes);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** What a kernel does that ORs. */
  public static void kernelOr(MemorySegment dst, MemorySegment runs, long count) {
    try {
      Library.KERNEL_OR.invokeExact(dst, runs, count);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** QEMU's bitmaps. */
  public static MemorySegment qemuNew(long words) {
    try {
      return (MemorySegment) Library.QEMU_NEW.invokeExact(words);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Frees them. */
  public static void qemuFree(MemorySegment qemu) {
    try {
      Library.QEMU_FREE.invokeExact(qemu);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** QEMU's sync of two sources and its search. */
  public static long qemuSync(
      MemorySegment qemu, MemorySegment answer, MemorySegment runs, long count, long words) {
    try {
      return (long) Library.QEMU_SYNC.invokeExact(qemu, answer, runs, count, words);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Sets bits of a list, from one on, each so many further. */
  public static void atomicOrs(
      MemorySegment map, MemorySegment pages, long from, long count, long step) {
    try {
      Library.ATOMIC_ORS.invokeExact(map, pages, from, count, step);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Merges pieces to where they belong, by the word. */
  public static long scatter(
      MemorySegment dst, MemorySegment src, MemorySegment places, long pieces, long bits) {
    try {
      return (long) Library.SCATTER.invokeExact(dst, src, places, pieces, bits);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Merges pieces to where they belong, bit by bit. */
  public static long scatterBits(
      MemorySegment dst, MemorySegment src, MemorySegment places, long pieces, long bits) {
    try {
      return (long) Library.SCATTER_BITS.invokeExact(dst, src, places, pieces, bits);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Takes the pages that were written; all ones if it fails. */
  public static long pagemapRound(MemorySegment memory, long bytes, MemorySegment map, long words) {
    try {
      return (long) Library.PAGEMAP_ROUND.invokeExact(memory, bytes, map, words);
    } catch (Throwable e) {
      throw failed(e);
    }
  }

  /** Calls the kernel so many times. */
  public static int ioctlCalls(int fd, long request, long count) {
    try {
      return (int) Library.IOCTL_CALLS.invokeExact(fd, request, count);
    } catch (Throwable e) {
      throw failed(e);
    }
  }
}
