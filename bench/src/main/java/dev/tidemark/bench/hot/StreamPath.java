package dev.tidemark.bench.hot;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.stream.StreamReader;
import dev.tidemark.engine.stream.StreamWriter;
import dev.tidemark.engine.stream.Throttle;
import dev.tidemark.ffm.IoVectors;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.net.InetSocketAddress;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;

/** Writing memory without zero pages to a connection over loopback, and loading it there. */
public final class StreamPath implements AutoCloseable {
  private static final long PIECE = 1 << 20;

  private final Mapping source;
  private final Mapping target;

  /**
   * @param bytes of memory, a multiple of 1 MiB
   */
  public StreamPath(long bytes) {
    source = Mapping.anonymous(bytes);
    target = Mapping.anonymous(bytes);
    SplittableRandom random = new SplittableRandom(BitmapInput.SEED);
    for (long at = 0; at < bytes; at += Long.BYTES) {
      source.segment().set(ValueLayout.JAVA_LONG, at, random.nextLong());
    }
    target.segment().fill((byte) 1);
  }

  /** Writes the stream from one thread and loads it in another. */
  public long tidemark() {
    RamBlock block = new RamBlock("ram", source.segment());
    return transfer(
        socket -> {
          try (StreamWriter writer = new StreamWriter(socket, new Throttle(0))) {
            writer.begin("bench");
            writer.startRam(List.of(block));
            writer.beginRound();
            writer.pages(block, 0, block.pages());
            writer.endRound();
            writer.endRam();
            writer.eof();
          }
        },
        socket -> {
          RamBlock loaded = new RamBlock("ram", target.segment());
          try (StreamReader reader =
              new StreamReader(socket, "bench", List.of(loaded), List.of())) {
            reader.loadUntilHandover();
            return reader.pagesRead();
          }
        });
  }

  /** Writes the same bytes in pieces of a MiB and reads them to where they belong. */
  public long plainCopy() {
    return transfer(
        socket -> {
          try (Arena arena = Arena.ofConfined()) {
            IoVectors vectors = new IoVectors(arena, 1);
            for (long at = 0; at < source.segment().byteSize(); at += PIECE) {
              vectors.clear();
              vectors.add(source.segment(), at, PIECE);
              socket.writeFully(vectors);
            }
          }
        },
        socket -> {
          MemorySegment memory = target.segment();
          long at = 0;
          while (at < memory.byteSize()) {
            at += socket.read(memory.asSlice(at), Math.min(PIECE, memory.byteSize() - at));
          }
          return at >>> 12;
        });
  }

  private interface Sender {
    void send(Socket socket);
  }

  private interface Receiver {
    long receive(Socket socket);
  }

  private static long transfer(Sender sender, Receiver receiver) {
    try (Socket listener = Socket.listen(new InetSocketAddress("127.0.0.1", 0));
        Socket near = Socket.connect(listener.localAddress());
        Socket far = listener.accept()) {
      Callable<Long> receiving = () -> receiver.receive(far);
      FutureTask<Long> received = new FutureTask<>(receiving);
      Thread thread = Thread.ofPlatform().name("receiver").start(received);
      sender.send(near);
      long pages = received.get();
      thread.join();
      return pages;
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted", e);
    } catch (ExecutionException e) {
      throw new IllegalStateException("the receiver failed", e.getCause());
    }
  }

  /** Whether what was sent has arrived. */
  public boolean arrived() {
    return source.segment().mismatch(target.segment()) == -1;
  }

  @Override
  public void close() {
    source.close();
    target.close();
  }
}
