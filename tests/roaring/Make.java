import java.io.*;
import org.roaringbitmap.RoaringBitmap;

/**
 * Writes the set of the specification's test data, without and with runs. The files beside this one
 * are from RoaringBitmap 1.3.0 (org.roaringbitmap, on Maven Central), compressed with gzip -9n:
 *
 *     java -cp RoaringBitmap-1.3.0.jar Make.java
 */
class Make {
    public static void main(String[] arguments) throws IOException {
        RoaringBitmap bitmap = new RoaringBitmap();
        for (int k = 0; k < 100; k++) bitmap.add(k * 1000);
        for (int k = 100_000; k < 200_000; k++) bitmap.add(k * 3);
        for (int k = 700_000; k < 800_000; k++) bitmap.add(k);
        write(bitmap, "without_runs.bin");
        bitmap.runOptimize();
        write(bitmap, "with_runs.bin");
    }

    private static void write(RoaringBitmap bitmap, String name) throws IOException {
        try (DataOutputStream file = new DataOutputStream(new FileOutputStream(name))) {
            bitmap.serialize(file);
        }
    }
}
