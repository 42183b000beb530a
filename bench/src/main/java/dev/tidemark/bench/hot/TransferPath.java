package dev.tidemark.bench.hot;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.stream.StreamReader;
import dev.tidemark.engine.stream.StreamWriter;
import dev.tidemark.engine.stream.Throttle;
import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Socket;
import java.io.BufferedReader;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.SplittableRandom;

/**
 * Moving a guest's memory of 2 GiB, three quarters of it random and the rest zero, to another
 * process over one connection, beside plain copying of the random part.
 */
public final class TransferPath implements AutoCloseable {
  /** Bytes of memory. */
  public static final long BYTES = 2L << 30;

  /** Bytes that are not zero. */
  public static final long RANDOM_BYTES = BYTES / 4 * 3;

  private static final long PIECE = 1 << 20;
  private static final int STREAM = 's';
  private static final int PLAIN = 'p';

  private final Mapping source = Mapping.anonymous(BYTES);
  private final Process process;
  private final InetSocketAddress address;

  /** Makes the memory and the receiving process. */
  public TransferPath() {
    fill(source.segment());
    process = OtherJvm.start(TransferPath.class);
    try {
      BufferedReader lines = process.inputReader();
      String port = lines.readLine();
      if (port == null) {
        throw new IllegalStateException("the receiving process did not start");
      }
      address = new InetSocketAddress("127.0.0.1", Integer.parseInt(port));
    } catch (IOException e) {
      throw new IllegalStateException("the receiving process did not start", e);
    }
  }

  /** Fills a guest's memory; the same each time. */
  static void fill(MemorySegment memory) {
    SplittableRandom random = new SplittableRandom(BitmapInput.SEED);
    for (long at = 0; at < RANDOM_BYTES; at += Long.BYTES) {
      memory.set(ValueLayout.JAVA_LONG, at, random.nextLong());
    }
  }

  /** Moves the memory as a migration does. */
  public long tidemark() {
    return transfer(
        STREAM,
        socket -> {
          RamBlock block = new RamBlock("ram", source.segment());
          try (StreamWriter writer = new StreamWriter(socket, new Throttle(0))) {
            writer.begin("bench");
            writer.startRam(List.of(block));
            writer.beginRound();
            writer.pages(block, 0, block.pages());
            writer.endRound();
            writer.endRam();
            writer.eof();
          }
        });
  }

  /** Copies the random part. */
  public long plainCopy() {
    return transfer(
        PLAIN,
        socket -> {
          try (Arena arena = Arena.ofConfined()) {
            IoVectors vectors = new IoVectors(arena, 1);
            for (long at = 0; at < RANDOM_BYTES; at += PIECE) {
              vectors.clear();
              vectors.add(source.segment(), at, PIECE);
              socket.writeFully(vectors);
            }
          }
        });
  }

  private interface Sender {
    void send(Socket socket);
  }

  /** Sends, and waits until the other side says the sum of what it has. */
  private long transfer(int mode, Sender sender) {
    try (Socket socket = Socket.connect(address);
        Arena arena = Arena.ofConfined()) {
      MemorySegment word = arena.allocate(Long.BYTES);
      word.set(ValueLayout.JAVA_LONG, 0, mode);
      IoVectors vectors = new IoVectors(arena, 1);
      vectors.add(word);
      socket.writeFully(vectors);
      sender.send(socket);
      readFully(socket, word);
      return word.get(ValueLayout.JAVA_LONG, 0);
    }
  }

  private static void readFully(Socket socket, MemorySegment memory) {
    for (long at = 0; at < memory.byteSize(); ) {
      long length = socket.read(memory.asSlice(at), Math.min(PIECE, memory.byteSize() - at));
      if (length <= 0) {
        throw new IllegalStateException("the connection ended after " + at + " bytes");
      }
      at += length;
    }
  }

  /** The receiving process: prints its port, and serves one connection after the other. */
  public static void main(String[] arguments) {
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Mapping target = Mapping.anonymous(BYTES);
        Arena arena = Arena.ofConfined()) {
      target.segment().fill((byte) 1);
      System.out.println(listener.localAddress().getPort());
      while (true) {
        try (Socket socket = listener.accept()) {
          MemorySegment word = arena.allocate(Long.BYTES);
          readFully(socket, word);
          if (word.get(ValueLayout.JAVA_LONG, 0) == STREAM) {
            RamBlock loaded = new RamBlock("ram", target.segment());
            try (StreamReader reader =
                new StreamReader(socket, "bench", List.of(loaded), List.of())) {
              reader.loadUntilHandover();
            }
          } else {
            readFully(socket, target.segment().asSlice(0, RANDOM_BYTES));
          }
          // The last page of the random part, and one of the others.
          long sum = target.segment().get(ValueLayout.JAVA_LONG, RANDOM_BYTES - 8);
          word.set(ValueLayout.JAVA_LONG, 0, sum);
          IoVectors vectors = new IoVectors(arena, 1);
          vectors.add(word);
          socket.writeFully(vectors);
        }
      }
    }
  }

  @Override
  public void close() {
    process.destroyForcibly();
    source.close();
  }
}
